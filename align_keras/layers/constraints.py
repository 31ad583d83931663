"""Bounds on weights, applied by the optimizer after each step."""

import keras
import tensorflow as tf


class AtLeast(keras.constraints.Constraint):
    """Keeps a weight at or above a minimum."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, weight: tf.Tensor) -> tf.Tensor:
        """The weight, or the minimum if the weight is below it."""
        return tf.maximum(weight, self.minimum)
