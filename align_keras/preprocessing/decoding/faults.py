"""Reasons for which every part of this package refuses an image: one list for all."""

import tensorflow as tf

#: Larger images are refused: a PNG of a megabyte can decode to gigabytes.
MAX_PIXELS = 1 << 26
#: The formats that are decoded.
FORMATS = "a JPEG, PNG, GIF, BMP or WebP image"

TOO_LARGE = "has too many pixels"
UNSUPPORTED = "is of an unsupported format"
COMPRESSED_BMP = "is a compressed BMP"
UNDECODABLE = "does not decode"
_NAMED = (TOO_LARGE, UNSUPPORTED, COMPRESSED_BMP)


class ImageFaultError(ValueError):
    """Why an encoded image cannot be used, to follow the words "the image"."""


def fault_of(error: tf.errors.OpError) -> str:
    """The reason of the decoder's error, to follow the words "the image"."""
    return next((fault for fault in _NAMED if fault in error.message), UNDECODABLE)


def refuse_unless(condition: tf.Tensor, fault: str) -> tf.Operation | None:
    """An op that raises InvalidArgumentError, from which ``fault_of`` takes the fault."""
    return tf.debugging.Assert(condition, [f"the image {fault}"])


def check_pixels(count: tf.Tensor) -> tf.Operation | None:
    """An op that raises InvalidArgumentError if there are more than ``MAX_PIXELS``."""
    return refuse_unless(count <= MAX_PIXELS, TOO_LARGE)
