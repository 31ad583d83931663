"""BMP files. TensorFlow's own decoder ignores their palettes."""

import tensorflow as tf

from align_keras.preprocessing.decoding import faults
from align_keras.preprocessing.decoding.octets import number, octets, part
from align_keras.preprocessing.decoding.transparency import on_white

_FILE_HEADER = 14  # bytes
_OLD_HEADER = 12  # OS/2 header: two-byte sizes, three-byte colours
_HEADERS = (_OLD_HEADER, 40, 52, 56, 64, 108, 124)
_HEADER_WITH_ALPHA = 56  # headers of this size and longer have an alpha mask
_MASKED = 3  # the "compression" that assigns bits to colours by masks
_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


def decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP of 1, 4, 8, 16, 24 or 32 bits per pixel, with transparent pixels on white.

    Args:
        encoded: a scalar string.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: if the image is damaged or compressed, or has too many
        pixels.
    """
    head = octets(part(encoded, 0, _FILE_HEADER + _HEADERS[-1]), _FILE_HEADER + _HEADERS[-1])

    def at(place, size):
        return number(head[place : place + size], big_endian=False)

    header = at(14, 4)
    is_old = header == _OLD_HEADER
    width = tf.where(is_old, at(18, 2), at(18, 4))
    height = tf.where(is_old, at(20, 2), _signed(at(22, 4)))
    bits = tf.where(is_old, at(24, 2), at(28, 2))
    compression = tf.where(is_old, tf.zeros_like(header), at(30, 4))
    has_masks = (compression == _MASKED) & ((bits == 16) | (bits == 32))
    is_known = _is_among(header, _HEADERS) & _is_among(bits, (1, 4, 8, 16, 24, 32))
    num_rows = tf.abs(height)
    checks = [
        faults.refuse_unless(is_known & (width > 0) & (num_rows > 0), faults.UNDECODABLE),
        faults.refuse_unless((compression == 0) | has_masks, faults.COMPRESSED_BMP),
        # Each factor is below 2 ** 32, so the product does not overflow.
        faults.check_pixels(width * num_rows),
    ]
    with tf.control_dependencies(checks):
        stride = (width * bits + 31) // 32 * 4
    rows = tf.io.decode_raw(part(encoded, at(10, 4), stride * num_rows), tf.uint8)
    # Raises if there are too few bytes.
    rows = tf.reshape(rows, [num_rows, stride])
    # Rows are stored from the bottom up, unless the height is negative.
    rows = tf.reverse(rows, tf.range(tf.cast(height > 0, tf.int32)))

    def indexed():
        colours = tf.where(is_old, tf.zeros_like(header), at(46, 4))
        is_full = (colours == 0) | (colours > 256)
        colours = tf.where(is_full, tf.constant(256, tf.int64), colours)
        size = tf.where(is_old, tf.constant(3, tf.int64), 4)
        table = octets(part(encoded, _FILE_HEADER + header, size * colours), 4 * 256)
        table = tf.gather(table, tf.range(256, dtype=tf.int64)[:, None] * size + [2, 1, 0])
        return tf.gather(tf.cast(table, tf.uint8), _indices(rows, bits)[:, :width])

    def masked():
        usual = tf.where(bits == 16, *(tf.constant(_MASKS[size], tf.int64) for size in (16, 32)))
        own = number(tf.reshape(head[54:70], [4, 4]), big_endian=False)
        # In a shorter header, other data takes the place of the fourth mask.
        own = tf.where([True, True, True, header >= _HEADER_WITH_ALPHA], own, tf.zeros_like(own))
        masks = tf.where(has_masks, own, usual)
        return on_white(_by_masks(_words(rows[:, : width * bits // 8], bits), masks))

    def plain():
        return tf.reshape(rows[:, : 3 * width], [num_rows, width, 3])[..., ::-1]

    return tf.case([(bits <= 8, indexed), (bits == 24, plain)], default=masked)


def _signed(value):
    """Reinterprets an unsigned 32-bit number as a signed one."""
    return tf.where(value >= 1 << 31, value - (1 << 32), value)


def _is_among(value, choices):
    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def _indices(rows, bits):
    """Numbers of 1, 4 or 8 bits, as int32; the first number of a byte is in its highest bits."""
    shifts = tf.cast(tf.range(8 // bits)[::-1] * bits, tf.uint8)
    values = tf.bitwise.right_shift(rows[..., None], shifts)
    values = tf.bitwise.bitwise_and(values, tf.cast(2**bits - 1, tf.uint8))
    return tf.cast(tf.reshape(values, [tf.shape(rows)[0], -1]), tf.int32)


def _words(rows, bits):
    """Numbers of 16 or 32 bits, uint32."""

    def words(dtype):
        return tf.cast(
            tf.bitcast(tf.reshape(rows, [tf.shape(rows)[0], -1, dtype.size]), dtype), tf.uint32
        )

    return tf.cond(bits == 16, lambda: words(tf.uint16), lambda: words(tf.uint32))


def _by_masks(words, masks):
    """Red, green, blue and opacity, uint8, extracted by bit masks; opaque without a fourth mask."""
    channels = []
    for mask in tf.unstack(masks):
        lowest = tf.maximum(tf.bitwise.bitwise_and(mask, -mask), 1)
        shift = tf.cast(tf.raw_ops.PopulationCount(x=lowest - 1), tf.uint32)
        value = tf.bitwise.bitwise_and(words, tf.cast(mask, tf.uint32))
        value = tf.cast(tf.bitwise.right_shift(value, shift), tf.float32)
        channels.append(tf.math.divide_no_nan(value * 255.0, tf.cast(mask // lowest, tf.float32)))
    channels[3] = tf.where(masks[3] > 0, channels[3], 255.0)
    return tf.cast(tf.stack(channels, axis=-1), tf.uint8)
