"""Bounds on weights, which an optimizer applies after each step."""

import keras
import tensorflow as tf


class AtLeast(keras.constraints.Constraint):
    """Keeps a weight from falling below a minimum."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, weight: tf.Tensor) -> tf.Tensor:
        """The weight, or the minimum where it is below."""
        return tf.maximum(weight, self.minimum)
