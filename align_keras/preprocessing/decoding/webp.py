"""WebP files: decodes the first picture, with transparent pixels on white."""

import tensorflow as tf

from align_keras.preprocessing.decoding.octets import find_part, number, octets, part, replaced
from align_keras.preprocessing.decoding.transparency import on_white

_FIRST_CHUNK = 12
_FLAGS = 20  # place of the flags of an extended file
_OPACITY, _ANIMATION = 1 << 4, 1 << 1
_BYTES = [bytes([value]) for value in range(256)]


def decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a WebP; if it is animated, the first picture.

    TensorFlow must be told whether there is an alpha channel, and rejects a wrong value. An
    animated file must have the flag for one. If TensorFlow has to find out itself, it ends the
    process.

    Args:
        encoded: a scalar string.

    Returns:
        uint8, ``(height, width, 3)``, with transparent pixels on white.

    Raises:
        tf.errors.InvalidArgumentError: if the image does not decode. TensorFlow below 2.19, as in
            TF Serving, decodes no WebP.
    """

    def step(place):
        kind = part(encoded, place, 4)
        length = number(octets(part(encoded, place + 4, 4), 4), big_endian=False)
        is_picture = (kind == b"VP8 ") | (kind == b"VP8L")
        return is_picture, False, place + 8 + length + length % 2, [place, 13]

    is_extended = part(encoded, _FIRST_CHUNK, 4) == b"VP8X"
    flags = octets(part(encoded, _FLAGS, 1), 1)[0]
    is_animated = is_extended & (flags // _ANIMATION % 2 == 1)
    flags = tf.where(is_extended, tf.bitwise.bitwise_or(flags, _OPACITY), flags)
    flagged = replaced(encoded, _FLAGS, tf.gather(_BYTES, flags))
    # Lossless pictures have their own flag, which takes precedence.
    picture = find_part(encoded, _FIRST_CHUNK, step)
    lossless_has_opacity = octets(picture, 13)[12] // 16 % 2 == 1
    is_lossless = part(picture, 0, 4) == b"VP8L"
    has_opacity = is_animated | tf.where(is_lossless, lossless_has_opacity, is_extended)

    def decoded(channels):
        return tf.image.decode_image(flagged, channels=channels, expand_animations=False)

    return tf.cond(has_opacity, lambda: on_white(decoded(4)), lambda: decoded(3))
