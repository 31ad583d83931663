"""The normalized softmax loss as pure functions on arrays. No model, no optimizer."""

from align_keras.losses.contrastive import (
    dense_losses,
    false_negatives,
    pair_logits,
    recall_at_1,
    softmax_cross_entropy,
)
from align_keras.losses.global_batch import ID_FIELDS, global_losses
from align_keras.losses.tiled import rows_of_a_tile, tiled_losses

__all__ = [
    "ID_FIELDS",
    "dense_losses",
    "false_negatives",
    "global_losses",
    "pair_logits",
    "recall_at_1",
    "rows_of_a_tile",
    "softmax_cross_entropy",
    "tiled_losses",
]
