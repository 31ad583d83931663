"""Optimizers, schedules and weight averages. Gradients are computed and summed elsewhere."""

from align_keras.optimizers.averaging import averaged_weights
from align_keras.optimizers.lamb import Lamb
from align_keras.optimizers.layerwise_sgd import LayerwiseSGD
from align_keras.optimizers.named import OPTIMIZERS, leave_out_of_decay, make_optimizer
from align_keras.optimizers.schedules import (
    WarmupConstant,
    WarmupCosineDecay,
    WarmupLinearDecay,
    make_finetuning_schedule,
    make_schedule,
)

__all__ = [
    "OPTIMIZERS",
    "Lamb",
    "LayerwiseSGD",
    "WarmupConstant",
    "WarmupCosineDecay",
    "WarmupLinearDecay",
    "averaged_weights",
    "leave_out_of_decay",
    "make_finetuning_schedule",
    "make_optimizer",
    "make_schedule",
]
