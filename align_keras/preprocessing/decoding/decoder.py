"""The only image decoder, built from TensorFlow ops.

Training, evaluation, search, data preparation and exported models all use it.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.preprocessing.decoding import faults, orientation
from align_keras.preprocessing.decoding.bmp import decode_bmp
from align_keras.preprocessing.decoding.gif import decode_gif
from align_keras.preprocessing.decoding.octets import number, octets, part
from align_keras.preprocessing.decoding.png import decode_png
from align_keras.preprocessing.decoding.webp import decode_webp

# As accurate as other programs that use libjpeg; TensorFlow's default is less accurate.
_DCT = "INTEGER_ACCURATE"
_JPEG, _PNG, _GIF, _BMP = b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM"
# The first bytes of TIFF, Photoshop, AVIF and HEIC, icon, JPEG 2000 and JPEG XL files.
_UNSUPPORTED = rb"(II\*\x00|MM\x00\*|8BPS|\C{4}ftyp|\x00\x00\x01\x00|\x00\x00\x00\x0c)\C*"

#: A function from the shape of an image to a part of it: y, x, height and width, int32, ``(4,)``.
Window = Callable[[tf.Tensor], tf.Tensor]


# === In a graph ===


def decode(encoded: tf.Tensor, upright: bool = True) -> tf.Tensor:
    """Decodes an image; if a file holds several, the first one.

    Args:
        encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.
        upright: whether to turn the image according to its EXIF orientation.

    Returns:
        uint8, ``(height, width, 3)``, with transparent pixels on white.

    Raises:
        tf.errors.InvalidArgumentError: if the image does not decode; ``faults.fault_of`` returns
        the reason.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    # This is the case for almost every image. Calling TensorFlow's small ops one by one would take
    # half of the time.
    if tf.executing_eagerly() and _is_plain_jpeg(encoded.numpy(), upright):
        height, width, _ = tf.image.extract_jpeg_shape(encoded).numpy().tolist()
        if height * width <= faults.MAX_PIXELS:
            return tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT)
    return _decode(encoded, upright, None)


def decode_window(encoded: tf.Tensor, window: Window, upright: bool = True) -> tf.Tensor:
    """Decodes a part of an image. Of a JPEG, only that part is decoded.

    Args:
        encoded: as for ``decode``.
        window: called with the shape of the image that ``decode`` would return, int32, ``(3,)``.
        upright: as for ``decode``.

    Returns:
        That part of the result of ``decode``.

    Raises:
        tf.errors.InvalidArgumentError: as for ``decode``.
    """
    return _decode(tf.convert_to_tensor(encoded, tf.string), upright, window)


def orientation_of(encoded: tf.Tensor) -> tf.Tensor:
    """EXIF orientation of an image, 1 .. 8, int32; ``orientation.AS_STORED`` if there is none."""
    has_segment = _starts_with(encoded, _JPEG) & orientation.may_be_in_jpeg(encoded)
    return tf.case(
        [
            (has_segment, lambda: _traced(orientation.of_jpeg)(encoded)),
            (_starts_with(encoded, _PNG), lambda: _traced(orientation.of_png)(encoded)),
            (_is_webp(encoded), lambda: _traced(orientation.of_webp)(encoded)),
        ],
        default=lambda: tf.constant(orientation.AS_STORED),
    )


# === From Python ===


def decode_pixels(encoded: bytes, upright: bool = True) -> np.ndarray:
    """Like ``decode``, from bytes to an array; raises ImageFaultError if decoding fails."""
    try:
        return decode(tf.constant(encoded), upright).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise faults.ImageFaultError(faults.fault_of(error)) from None


def check_jpeg(encoded: bytes) -> int:
    """Raises like ``decode_pixels``; returns the number of colour channels in the file.

    The entire file is read, but decoded at an eighth of the size, in half the time.
    """
    data = tf.constant(encoded)
    try:
        height, width, channels = tf.image.extract_jpeg_shape(data).numpy().tolist()
        faults.check_pixels(tf.constant(height * width, tf.int64))
        tf.io.decode_jpeg(data, channels=3, ratio=8, dct_method=_DCT)
    except tf.errors.InvalidArgumentError as error:
        raise faults.ImageFaultError(faults.fault_of(error)) from None
    return channels


def read_orientation(encoded: bytes) -> int:
    """Like ``orientation_of``, from bytes to an int."""
    if _is_plain_jpeg(encoded):
        return orientation.AS_STORED
    return int(orientation_of(tf.constant(encoded)))


def _is_plain_jpeg(encoded: bytes, upright: bool = True) -> bool:
    """Whether the file starts like a JPEG and needs no turning."""
    return encoded.startswith(_JPEG) and not (upright and orientation.may_be_in_bytes(encoded))


# === Kinds ===


@functools.cache
def _traced(function: Callable, *options: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Traces a function of an encoded image and options once, instead of once per data set.

    It is not inlined into a graph, where every op of a branch would cost time even if the branch is
    not taken.
    """
    return tf.function(
        lambda encoded: function(encoded, *options),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def _starts_with(encoded, mark):
    return tf.strings.substr(encoded, 0, len(mark)) == mark


def _is_webp(encoded):
    return (part(encoded, 0, 4) == b"RIFF") & (part(encoded, 8, 4) == b"WEBP")


def _decode(encoded, upright, window):
    is_jpeg = _starts_with(encoded, _JPEG)
    is_plain = is_jpeg & ~orientation.may_be_in_jpeg(encoded) if upright else is_jpeg

    def turned_jpeg():
        if window is None:
            return _traced(_decode_turned_jpeg, None)(encoded)
        return _decode_turned_jpeg(encoded, window)

    def other():
        # In eager mode, only the branch for the file's format is traced.
        if tf.executing_eagerly():
            return _cut(_decode_other(encoded, upright), window)
        return _cut(_traced(_decode_other, upright)(encoded), window)

    def others():
        return tf.cond(is_jpeg, turned_jpeg, other)

    image = tf.cond(is_plain, lambda: _decode_jpeg(encoded, window), others)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_jpeg(encoded, window, shape=None):
    if shape is None:
        encoded, shape = _checked_jpeg(encoded)
    if window is None:
        return tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT)
    return tf.image.decode_and_crop_jpeg(encoded, window(shape), channels=3, dct_method=_DCT)


def _decode_turned_jpeg(encoded, window):
    encoded, shape = _checked_jpeg(encoded)
    way = _traced(orientation.of_jpeg)(encoded)

    def stored_window(_):
        upright_shape = tf.concat([orientation.upright_shape(shape[:2], way), [3]], axis=0)
        return orientation.stored_window(window(upright_shape), upright_shape[:2], way)

    stored = _decode_jpeg(encoded, stored_window if window else None, shape)
    return orientation.turn(stored, way)


def _checked_jpeg(encoded):
    """A JPEG after a check that it has at most ``faults.MAX_PIXELS`` pixels, and its shape."""
    # The header is read once, since every kernel takes a notable part of a small image's time.
    shape = tf.image.extract_jpeg_shape(encoded)
    check = faults.check_pixels(tf.reduce_prod(tf.cast(shape[:2], tf.int64)))
    with tf.control_dependencies([check]):
        return tf.identity(encoded), shape


def _decode_other(encoded, upright):
    """Decodes an image that is not a JPEG."""
    kinds = [
        (_starts_with(encoded, _PNG), _png),
        (_starts_with(encoded, _GIF), _gif),
        (_starts_with(encoded, _BMP), _bmp),
        (_is_webp(encoded), _webp),
    ]
    return tf.case(
        [(is_it, functools.partial(_traced(kind, upright), encoded)) for is_it, kind in kinds],
        default=lambda: _refused(encoded),
    )


def _png(encoded, upright):
    size = octets(part(encoded, 16, 8), 8)
    with _checked(number(size[:4], True) * number(size[4:], True)):
        pixels = decode_png(tf.identity(encoded))
    return orientation.turn(pixels, orientation.of_png(encoded)) if upright else pixels


def _webp(encoded, upright):
    with _checked(_webp_pixels(encoded)):
        pixels = decode_webp(tf.identity(encoded))
    return orientation.turn(pixels, orientation.of_webp(encoded)) if upright else pixels


def _gif(encoded, _):
    return decode_gif(encoded)


def _bmp(encoded, _):
    return decode_bmp(encoded)


def _cut(image, window):
    if window is None:
        return image
    y, x, height, width = tf.unstack(window(tf.shape(image)))
    return image[y : y + height, x : x + width]


def _checked(pixels):
    return tf.control_dependencies([faults.check_pixels(pixels)])


def _webp_pixels(encoded):
    """The number of pixels by the header, which is extended, lossless (14-bit sizes) or lossy."""
    kind, low = part(encoded, 12, 4), 1 << 14
    head = octets(part(encoded, 20, 10), 10)
    bits = number(head[1:5], False)
    extended = (number(head[4:7], False) + 1) * (number(head[7:10], False) + 1)
    lossless = (bits % low + 1) * (bits // low % low + 1)
    lossy = (number(head[6:8], False) % low) * (number(head[8:10], False) % low)
    return tf.where(kind == b"VP8X", extended, tf.where(kind == b"VP8L", lossless, lossy))


def _refused(encoded):
    is_known = tf.strings.regex_full_match(part(encoded, 0, 16), _UNSUPPORTED)
    with tf.control_dependencies([faults.refuse_unless(~is_known, faults.UNSUPPORTED)]):
        undecodable = faults.refuse_unless(tf.constant(False), faults.UNDECODABLE)
    with tf.control_dependencies([undecodable]):
        return tf.zeros([0, 0, 3], tf.uint8)
