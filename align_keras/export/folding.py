"""Puts the frozen batch norms of an image tower into the kernels before them."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


class _Shift(keras.layers.BatchNormalization):
    """What is left of a batch norm whose factor is in the kernel before it: ``inputs + beta``."""

    def call(self, inputs, training=None, mask=None):
        """Adds the shift, ``(channels,)``, to ``(batch, height, width, channels)``."""
        return tf.nn.bias_add(inputs, tf.cast(tf.convert_to_tensor(self.beta), inputs.dtype))


def fold_batch_norm(backbone):
    """Folds every batch norm that stands behind a convolution without bias.

    In inference ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` is linear in the kernel,
    so the embeddings stay the same but for rounding.

    Args:
        backbone: an ``AlignBackbone``; it stays as it is.

    Returns:
        A copy, for inference alone.
    """
    folded = type(backbone).from_config(backbone.get_config())
    folded.set_weights(backbone.get_weights())
    for convolution, norm in _pairs(folded.image_encoder):
        variance, mean = norm.moving_variance.numpy(), norm.moving_mean.numpy()
        factor = norm.gamma.numpy() / np.sqrt(variance + norm.epsilon)
        kernel = convolution.kernel.numpy()
        # A depthwise kernel ends in (channels, 1), any other in (inputs, channels).
        depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        convolution.kernel.assign(kernel * (factor[:, None] if depthwise else factor))
        norm.beta.assign(norm.beta.numpy() - mean * factor)
        norm.__class__ = _Shift
    return folded


def _pairs(encoder):
    """Which batch norms take their input from which convolutions: a list of both."""
    calls = []
    with _watched(calls):
        encoder(np.zeros((1, 64, 64, 3), "float32"))
    makers = {id(output): layer for layer, _, output in calls if isinstance(layer, _CONVOLUTIONS)}
    return [
        (makers[id(inputs)], layer)
        for layer, inputs, _ in calls
        if isinstance(layer, keras.layers.BatchNormalization)
        and id(inputs) in makers
        and not makers[id(inputs)].use_bias
    ]


@contextlib.contextmanager
def _watched(calls):
    """Within, the calls of all layers are listed: layer, first input, output."""
    original = keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        # All are kept, so that no two ids are the same.
        calls.append((self, args[0] if args else None, output))
        return output

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = original
