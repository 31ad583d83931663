"""The names of a batch's fields."""

from collections.abc import Mapping
from typing import Any

#: What a text tower takes, int32, ``(batch, sequence)``.
TEXT_INPUTS = ("token_ids", "segment_ids", "padding_mask")
#: Crops before scaling, uint8, ``(batch, size, size, 3)``: ``scale`` of a preprocessor makes
#: ``images`` of them on the device, a quarter of the bytes.
PIXELS = "pixels"
#: What a backbone takes.
MODEL_INPUTS = ("images", *TEXT_INPUTS)


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a model takes from a batch: ``MODEL_INPUTS``, or ``PIXELS`` for images."""
    return {name: batch[name] for name in (PIXELS, *MODEL_INPUTS) if name in batch}
