"""The names of a batch's fields."""

from collections.abc import Mapping
from typing import Any

#: What a text tower takes, int32, ``(batch, sequence)``.
TEXT_INPUTS = ("token_ids", "segment_ids", "padding_mask")
#: Crops before scaling, uint8, ``(batch, size, size, 3)``: ``scale`` of a preprocessor makes
#: ``images`` of them on the device, a quarter of the bytes.
PIXELS = "pixels"
#: The features of a tower, float32, ``(batch, width)``, which may stand for what it takes.
IMAGE_FEATURES, TEXT_FEATURES = "image_features", "text_features"
#: What a backbone takes.
MODEL_INPUTS = ("images", *TEXT_INPUTS)


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a model takes from a batch: ``MODEL_INPUTS``, or what may replace them."""
    names = (PIXELS, IMAGE_FEATURES, TEXT_FEATURES, *MODEL_INPUTS)
    return {name: batch[name] for name in names if name in batch}
