"""Adapts a Keras optimizer to gradients that are already summed over the replicas."""

from typing import Any

import keras

from align_keras import keras_internals

# Unsupported optimizer arguments, with replacements.
_CLIPS = "give global_clipnorm to compile, which clips after the sum over replicas"
_INSTEAD = {
    "clipnorm": _CLIPS,
    "clipvalue": _CLIPS,
    "global_clipnorm": _CLIPS,
    "loss_scale_factor": "wrap it in keras.optimizers.LossScaleOptimizer",
    "gradient_accumulation_steps": "give micro_batch_size to compile",
}


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a ``LossScaleOptimizer``, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimizer's scale for the loss, a power of two; 1 if it does not scale."""
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.scale_loss(1.0) if scales else 1.0


def for_summed_gradients(
    optimizer: keras.optimizers.Optimizer, scale_loss: bool
) -> keras.optimizers.Optimizer:
    """An optimizer that applies gradients unchanged: already summed, clipped, and scaled if needed.

    Args:
        optimizer: an optimizer without clipping, scaling or accumulation of its own; it is
            modified.
        scale_loss: whether any layer computes in float16.

    Returns:
        The optimizer, wrapped in a ``LossScaleOptimizer`` if ``scale_loss`` is True.

    Raises:
        ValueError: if the optimizer itself clips, scales or accumulates.
    """
    inner = inner_optimizer(optimizer)
    for name, instead in _INSTEAD.items():
        if getattr(inner, name):
            raise ValueError(f"the optimizer's {name}: {instead}")
    keras_internals.leave_sums_and_averages(inner)
    if scale_loss and inner is optimizer:
        return keras.optimizers.LossScaleOptimizer(inner)
    return optimizer
