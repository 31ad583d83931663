"""Folds the frozen batch norms of an image tower into the preceding kernels."""

import keras
import numpy as np

from align_keras.models import efficientnet
from align_keras.models.backbone import AlignBackbone
from align_keras.models.image_encoder import ImageEncoder


def fold_batch_norm(backbone: AlignBackbone) -> AlignBackbone:
    """Folds every batch norm of the image tower into the preceding convolution.

    In inference ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` is linear in the kernel,
    so the embeddings change only by rounding.

    Args:
        backbone: an ``AlignBackbone`` whose image tower is an ``ImageEncoder``; it is not changed.

    Returns:
        A copy that can only be used for inference.

    Raises:
        ValueError: if the image tower is of another class.
    """
    if not isinstance(backbone.image_encoder, ImageEncoder):
        raise ValueError(
            f"fold_batch_norm: the image tower is not an ImageEncoder, but "
            f"{type(backbone.image_encoder).__name__}; leave its batch norms as they are"
        )
    folded = type(backbone).from_config(backbone.get_config())
    folded.set_weights(backbone.get_weights())
    for convolution, norm in efficientnet.normalized_convolutions(folded.image_encoder):
        variance, mean = norm.moving_variance.numpy(), norm.moving_mean.numpy()
        factor = norm.gamma.numpy() / np.sqrt(variance + norm.epsilon)
        kernel = convolution.kernel.numpy()
        # A depthwise kernel ends in (channels, 1), other kernels in (inputs, channels).
        depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        convolution.kernel.assign(kernel * (factor[:, None] if depthwise else factor))
        norm.beta.assign(norm.beta.numpy() - mean * factor)
        norm.shift_only = True
    return folded
