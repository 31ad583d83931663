"""EfficientNet's activation, in one form for training and another for inference."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

_INFERENCE = contextvars.ContextVar("inference", default=False)


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Inside the block, ``silu`` uses the form for inference."""
    token = _INFERENCE.set(True)
    try:
        yield
    finally:
        _INFERENCE.reset(token)


def silu(x: tf.Tensor) -> tf.Tensor:
    """``x * sigmoid(x)``.

    Keras's version, ``tf.nn.silu``, has a custom gradient that keeps less for the backward pass. In
    inference, the custom gradient prevents TensorFlow from fusing convolution, batch norm and
    activation into one op. Without it, B0 is a tenth faster on a CPU (``benchmarks/README.md``).
    """
    return x * tf.sigmoid(x) if _INFERENCE.get() else keras.activations.silu(x)
