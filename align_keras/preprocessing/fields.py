"""The names of the fields of a batch."""

from collections.abc import Mapping
from typing import Any

#: The inputs of a text tower, int32, ``(batch, sequence)``.
TEXT_INPUTS = ("token_ids", "segment_ids", "padding_mask")
#: Unscaled crops, uint8, ``(batch, size, size, 3)``. ``scale`` of a preprocessor converts them to
#: ``images`` on the device, so that only a quarter of the bytes is transferred.
PIXELS = "pixels"
#: The features of a tower, float32, ``(batch, width)``, which may replace the inputs of that tower.
IMAGE_FEATURES, TEXT_FEATURES = "image_features", "text_features"
#: The inputs of a backbone.
MODEL_INPUTS = ("images", *TEXT_INPUTS)


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a batch that a model uses: ``MODEL_INPUTS``, or what replaces them."""
    names = (PIXELS, IMAGE_FEATURES, TEXT_FEATURES, *MODEL_INPUTS)
    return {name: batch[name] for name in names if name in batch}
