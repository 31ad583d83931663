"""The reasons for rejecting an image: one list for the whole package."""

import tensorflow as tf

#: Images with more pixels are rejected: a PNG of a megabyte can decode to gigabytes.
MAX_PIXELS = 1 << 26
#: The supported formats.
FORMATS = "a JPEG, PNG, GIF, BMP or WebP image"

TOO_LARGE = "has too many pixels"
UNSUPPORTED = "is of an unsupported format"
COMPRESSED_BMP = "is a compressed BMP"
UNDECODABLE = "does not decode"
_NAMED = (TOO_LARGE, UNSUPPORTED, COMPRESSED_BMP)


class ImageFaultError(ValueError):
    """Why an encoded image cannot be used; the message follows the words "the image"."""


def fault_of(error: tf.errors.OpError) -> str:
    """The reason in an error of the decoder, to follow the words "the image"."""
    return next((fault for fault in _NAMED if fault in error.message), UNDECODABLE)


def refuse_unless(condition: tf.Tensor, fault: str) -> tf.Operation | None:
    """An op that raises InvalidArgumentError, with ``fault`` in a form that ``fault_of`` reads."""
    return tf.debugging.Assert(condition, [f"the image {fault}"])


def check_pixels(count: tf.Tensor) -> tf.Operation | None:
    """An op that raises InvalidArgumentError for more than ``MAX_PIXELS`` pixels."""
    return refuse_unless(count <= MAX_PIXELS, TOO_LARGE)
