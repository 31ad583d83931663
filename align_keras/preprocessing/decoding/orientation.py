"""EXIF orientation of an image: reads and applies it with TensorFlow ops.

The result equals that of ``PIL.ImageOps.exif_transpose``. Damaged EXIF counts as absent; nothing
here raises.
"""

import tensorflow as tf

from align_keras.preprocessing.decoding.octets import contains, find_part, number, octets, part
from align_keras.preprocessing.decoding.png import find_chunk

#: EXIF value for pixels that are stored upright.
AS_STORED = 1
#: The orientations that exchange height and width.
EXCHANGED = (5, 6, 7, 8)
_TAG = 0x0112
_SHORT, _LONG = 3, 4  # types of TIFF fields
_FIELD = 12  # bytes per TIFF field
_TIFF_MARKS = (b"II*\0", b"MM\0*")
_EXIF = b"Exif\0\0"
# JPEG markers: a segment for applications, start of scan, end of image.
_APP1, _SCAN, _END = 0xE1, 0xDA, 0xD9
# A JPEG's EXIF segment must begin within this many bytes. It stands near the start, and a longer
# search would take time.
_SEARCHED = 1 << 16


# === Reading ===


def may_be_in_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG may have an EXIF segment; hardly ever true without one."""
    return contains(tf.strings.substr(encoded, 0, _SEARCHED), _EXIF)


def may_be_in_bytes(jpeg: bytes) -> bool:
    """Like ``may_be_in_jpeg``, for bytes."""
    return _EXIF in jpeg[:_SEARCHED]


def of_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation in a JPEG's EXIF segment, 1 .. 8, int32; ``AS_STORED`` if there is none."""

    def step(place):
        header = octets(part(encoded, place, 4), 4)
        marker, length = header[1], tf.maximum(number(header[2:], big_endian=True), 2)
        is_exif = (marker == _APP1) & (part(encoded, place + 4, len(_EXIF)) == _EXIF)
        is_last = (header[0] != 0xFF) | (marker == _SCAN) | (marker == _END)
        # A marker may follow any number of 0xFF bytes.
        following = place + tf.where(marker == 0xFF, tf.constant(1, tf.int64), 2 + length)
        return is_exif, is_last, following, [place + 4 + len(_EXIF), length - 2 - len(_EXIF)]

    return _of_tiff(find_part(encoded, 2, step))


def of_png(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation in a PNG's eXIf chunk, 1 .. 8, int32; ``AS_STORED`` if there is none."""
    return tf.cond(
        # Searched first, since a PNG can have thousands of chunks.
        contains(encoded, b"eXIf"),
        lambda: _of_tiff(find_chunk(encoded, b"eXIf")),
        lambda: tf.constant(AS_STORED),
    )


def of_webp(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation in a WebP's EXIF chunk, 1 .. 8, int32; ``AS_STORED`` if there is none."""

    def step(place):
        length = number(octets(part(encoded, place + 4, 4), 4), big_endian=False)
        found = [place + 8, length]
        return part(encoded, place, 4) == b"EXIF", False, place + 8 + length + length % 2, found

    return of_exif(find_part(encoded, 12, step))


def of_exif(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in EXIF data, 1 .. 8, int32; the data may start like a JPEG's segment."""
    start = tf.where(tf.strings.substr(exif, 0, len(_EXIF)) == _EXIF, len(_EXIF), 0)
    return _of_tiff(tf.strings.substr(exif, start, tf.strings.length(exif)))


def _of_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation in a TIFF structure."""
    head = octets(part(tiff, 0, 8), 8)
    is_tiff = tf.reduce_any(tf.strings.substr(tiff, 0, 4) == tf.constant(_TIFF_MARKS))
    is_big = head[0] == ord("M")

    def read(values):
        return tf.where(is_big, number(values, True), number(values, False))

    offset = read(head[4:])
    count = read(octets(part(tiff, offset, 2), 2))
    # Only as many fields as there are, since the list may be truncated.
    fields = tf.io.decode_raw(part(tiff, offset + 2, _FIELD * count), tf.uint8)
    fields = fields[: tf.size(fields) // _FIELD * _FIELD]
    fields = tf.cast(tf.reshape(fields, [-1, _FIELD]), tf.int64)
    fields = tf.boolean_mask(fields, read(fields[:, :2]) == _TAG)
    field = tf.concat([fields, tf.zeros([1, _FIELD], tf.int64)], axis=0)[0]
    kind = read(field[2:4])
    value = tf.where(kind == _SHORT, read(field[8:10]), read(field[8:]))
    is_known = is_tiff & ((kind == _SHORT) | (kind == _LONG)) & (read(field[4:8]) == 1)
    is_known &= (value >= 1) & (value <= 8)
    return tf.where(is_known, tf.cast(value, tf.int32), AS_STORED)


# === Applying ===


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns stored pixels upright.

    Args:
        image: ``(height, width, channels)``.
        orientation: 1 .. 8, int32.

    Returns:
        The same pixels, upright; the orientations in ``EXCHANGED`` swap height and width.
    """
    image = tf.cond(
        orientation >= EXCHANGED[0], lambda: tf.transpose(image, [1, 0, 2]), lambda: image
    )
    return tf.reverse(image, tf.boolean_mask([0, 1], _is_reversed(orientation)))


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Height and width of the upright image, int32, ``(2,)``, given those of the stored one."""
    return tf.gather(shape, _axes(orientation))


def stored_window(window: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The part of the stored image that corresponds to a window of the upright image.

    Args:
        window: y, x, height and width, int32, ``(4,)``.
        shape: height and width of the upright image, int32, ``(2,)``.
        orientation: 1 .. 8, int32.

    Returns:
        y, x, height and width, int32, ``(4,)``.
    """
    start, extent = window[:2], window[2:]
    start = tf.where(_is_reversed(orientation), shape - start - extent, start)
    axes = _axes(orientation)
    return tf.concat([tf.gather(start, axes), tf.gather(extent, axes)], axis=0)


def _axes(orientation: tf.Tensor) -> tf.Tensor:
    """The stored axes that become height and width of the upright image."""
    return tf.where(orientation >= EXCHANGED[0], [1, 0], [0, 1])


def _is_reversed(orientation: tf.Tensor) -> tf.Tensor:
    """Whether the upright image's axes run against the stored ones: bool, ``(2,)``."""
    return tf.gather([(o in (3, 4, 7, 8), o in (2, 3, 6, 7)) for o in range(9)], orientation)
