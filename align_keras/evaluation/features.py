"""A model that computes the features of each image only once."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

# Maximum size of the kept features: 200,000 images with EfficientNet-B0, 100,000 with B7.
_MOST_BYTES = 1 << 30


class EmbedsOnce:
    """A dual encoder that keeps the features of crops: the tower processes each image once.

    Tasks that share images also share the work, even if the images are in different files. The
    tower's features are kept, since the embeddings follow from them by a matrix product. Beyond
    1 GiB, the features that were not used for the longest time are dropped.

    Args:
        model: an ``AlignDualEncoder``; everything but images is passed on to it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        # Features by digest, in the order of their last use.
        self._features: dict[bytes, np.ndarray] = {}
        self._num_embedded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def num_embedded(self) -> int:
        """The number of images that the tower has processed."""
        return self._num_embedded

    def encode_image_features(
        self, images: np.ndarray, batch_size: int, cropped: bool = True
    ) -> np.ndarray:
        """The tower's features of uint8 crops: ``(images, width)``."""
        keys = [hashlib.sha256(crop.tobytes()).digest() for crop in images]
        new = {key: row for row, key in enumerate(keys) if key not in self._features}
        if new:
            new_images = images[list(new.values())]
            found = self._model.encode_image_features(new_images, batch_size, cropped=cropped)
            self._num_embedded += len(new)
            # Copies: a row would keep all of `found`.
            self._features.update(zip(new, map(np.copy, found), strict=True))
        for key in keys:
            self._features[key] = self._features.pop(key)
        features = np.stack([self._features[key] for key in keys])
        for key in list(self._features)[: self._too_many(features[0].nbytes)]:
            del self._features[key]
        return features

    def _too_many(self, bytes_each: int) -> int:
        return max(0, len(self._features) - _MOST_BYTES // bytes_each)

    def encode_images(
        self, images: np.ndarray, batch_size: int = 32, cropped: bool = True
    ) -> np.ndarray:
        """Like ``AlignDualEncoder.encode_images``, for crops: unit norm, ``(images, dim)``."""
        backbone = self._model.backbone
        features = tf.convert_to_tensor(self.encode_image_features(images, batch_size, cropped))
        return backbone.project_image_features(features).numpy()
