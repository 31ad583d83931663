"""GIF files: decodes the first frame, with transparent pixels on white."""

import tensorflow as tf

from align_keras.preprocessing.decoding import faults
from align_keras.preprocessing.decoding.octets import MAX_STEPS, number, octets, part, replaced

_EXTENSION, _FRAME = b"\x21", b"\x2c"
_CONTROL = 0xF9  # label of the extension that names the transparent colour
_HEADER = 13  # bytes before the global colour table
_WHITE = b"\xff\xff\xff"


def decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes the first frame of a GIF; pixels that it leaves open or transparent become white.

    TensorFlow's decoder makes transparent pixels black. The file is therefore changed first: its
    transparent colour becomes white and opaque.

    Args:
        encoded: a scalar string.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        tf.errors.InvalidArgumentError: if the image does not decode.
    """
    screen = octets(part(encoded, 6, 7), 7)
    frame_start, control = _first_frame(encoded, _HEADER + _table_size(screen[4]))
    frame = octets(part(encoded, frame_start, 10), 10)
    left, top, width, height = [number(frame[at : at + 2], False) for at in (1, 3, 5, 7)]
    whole_width = tf.maximum(number(screen[:2], False), left + width)
    whole_height = tf.maximum(number(screen[2:4], False), top + height)
    own_colours = _table_size(frame[9])
    colours = tf.where(own_colours > 0, frame_start + 10, _HEADER)
    num_bytes = tf.where(own_colours > 0, own_colours, _table_size(screen[4]))
    transparent = octets(part(encoded, control + 6, 1), 1)[0]

    def white_there():
        return replaced(replaced(encoded, control + 3, b"\0"), colours + 3 * transparent, _WHITE)

    with tf.control_dependencies([faults.check_pixels(whole_width * whole_height)]):
        changed = tf.cond(
            (control > 0) & (3 * transparent < num_bytes), white_there, lambda: encoded
        )
    # The decoder's image is as large as the largest frame, wherever the first frame lies.
    changed = replaced(changed, frame_start + 1, bytes(4))
    image = tf.image.decode_image(changed, channels=3, expand_animations=False)[:height, :width]
    margins = [[top, whole_height - top - height], [left, whole_width - left - width], [0, 0]]
    return tf.pad(image, margins, constant_values=255)


def _first_frame(encoded, start):
    """The places of the first frame and of its transparency extension (0 if absent)."""

    def goes_on(place, within, _):
        return within | (part(encoded, place, 1) == _EXTENSION)

    def step(place, within, control):
        """Skips the head of an extension, or one of its blocks; the last block is empty."""
        head = octets(part(encoded, place, 4), 4)
        is_control = ~within & (head[1] == _CONTROL)
        named = tf.where(head[3] % 2 == 1, place, tf.zeros_like(place))
        length = tf.where(within, 1 + head[0], tf.constant(2, tf.int64))
        goes_into = ~within | (head[0] > 0)
        return place + length, goes_into, tf.where(is_control, named, control)

    place, _, control = tf.while_loop(
        goes_on,
        step,
        (start, tf.constant(False), tf.constant(0, tf.int64)),
        maximum_iterations=MAX_STEPS,
    )
    is_frame = part(encoded, place, 1) == _FRAME
    with tf.control_dependencies([faults.refuse_unless(is_frame, faults.UNDECODABLE)]):
        return tf.identity(place), control


def _table_size(flags):
    """The size of a colour table in bytes; 0 if there is none."""
    return tf.where(flags >= 128, 6 * tf.bitwise.left_shift(tf.ones_like(flags), flags % 8), 0)
