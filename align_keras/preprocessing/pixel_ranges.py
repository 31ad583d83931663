"""Distinguishes scaled pixels, which are model inputs, from pixels of 0 to 255."""

import re
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.errors import InputError

_MARK = "floats out of range"
_FOUND = re.compile(_MARK + r"\] \[(\S+)\] \[(\S+)\]")


def _range(preprocessor: Any) -> tuple[float, float]:
    """The smallest and largest value of a scaled pixel, over all channels."""
    levels = np.array([[0.0], [255.0]]) * preprocessor.pixel_scale + preprocessor.pixel_offset
    return float(levels.min()), float(levels.max())


def _are_scaled(lowest: Any, highest: Any, preprocessor: Any) -> Any:
    low, high = _range(preprocessor)
    margin = 0.5 * (high - low)  # allows for added noise
    # Not written with the comparisons reversed: NaN must pass, since it is another fault.
    return ~((lowest < low - margin) | (highest > high + margin))


def _error(lowest: float, highest: float, preprocessor: Any) -> InputError:
    low, high = _range(preprocessor)
    return InputError(
        f"images: floats from {lowest:.3g} to {highest:.3g}, but the model takes "
        f"{low:.3g} to {high:.3g}",
        remedy="give uint8 images, which are scaled",
    )


def check(images: Any, preprocessor: Any) -> None:
    """Raises InputError if floats are far outside the range of scaled pixels.

    Args:
        images: a batch, floats ``(batch, height, width, 3)``.
        preprocessor: an ``AlignPreprocessor``; None if the range is unknown.
    """
    if preprocessor is None or not len(images):
        return
    found = np.float32(tf.reduce_min(images)), np.float32(tf.reduce_max(images))
    if not _are_scaled(*found, preprocessor):
        raise _error(float(found[0]), float(found[1]), preprocessor)


def checked(images: tf.Tensor, preprocessor: Any) -> tf.Tensor:
    """The images, after a ``check`` inside the graph of a dataset; see ``error_of``."""
    if preprocessor is None:
        return images
    found = tf.reduce_min(images), tf.reduce_max(images)
    fine = (tf.size(images) == 0) | _are_scaled(*found, preprocessor)
    with tf.control_dependencies([tf.debugging.Assert(fine, [_MARK, *found])]):
        return tf.identity(images)


def error_of(error: tf.errors.OpError, preprocessor: Any) -> InputError | None:
    """The InputError for a failure of ``checked``; None for other failures."""
    found = _FOUND.search(error.message)
    return _error(float(found[1]), float(found[2]), preprocessor) if found else None
