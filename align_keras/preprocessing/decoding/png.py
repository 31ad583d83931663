"""PNG files, with transparent pixels on white."""

import tensorflow as tf

from align_keras.preprocessing.decoding.octets import contains, find_part, number, octets, part
from align_keras.preprocessing.decoding.transparency import on_white

_FIRST_CHUNK = 8
_KIND = 25  # place of the colour type
_WITH_OPACITY = 4  # bit of the colour type for an alpha channel


def decode_png(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG; of 16 bits per channel, only the upper eight are used.

    TensorFlow must not be asked for an alpha channel that does not exist: it would decode images of
    less than 8 bits per pixel wrongly.

    Args:
        encoded: a scalar string.

    Returns:
        uint8, ``(height, width, 3)``, with transparent pixels on white.

    Raises:
        tf.errors.InvalidArgumentError: if the image does not decode.
    """

    def named_colours():
        return find_chunk(encoded, b"tRNS", before=b"IDAT") != b""

    kind = octets(part(encoded, _KIND, 1), 1)[0]
    has_opacity = tf.cond(contains(encoded, b"tRNS"), named_colours, lambda: tf.constant(False)) | (
        kind // _WITH_OPACITY % 2 == 1
    )
    return tf.cond(
        has_opacity,
        lambda: on_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def find_chunk(encoded: tf.Tensor, name: bytes, before: bytes = b"IEND") -> tf.Tensor:
    """The contents of a PNG's chunk; ``b""`` if it does not occur before the chunk ``before``."""

    def step(place):
        length = number(octets(part(encoded, place, 4), 4), big_endian=True)
        kind = part(encoded, place + 4, 4)
        return kind == name, kind == before, place + 12 + length, [place + 8, length]

    return find_part(encoded, _FIRST_CHUNK, step)
