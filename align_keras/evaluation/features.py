"""The image tower's features, and a model that computes each image's only once."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.preprocessing import raw_inputs


def feature_encoder(model: Any) -> Callable[..., np.ndarray]:
    """Like ``model.encode_images``, for the image tower's features before the projection.

    The paper's classifiers are trained on them. The function returns float32, ``(images, width)``.
    """
    if isinstance(model, EmbedsOnce):
        return model.encode_features

    def features(images: tf.Tensor) -> tf.Tensor:
        return model.backbone.image_encoder(raw_inputs.scaled(images, model.preprocessor))

    tower = tf.function(features, reduce_retracing=True, autograph=False)

    def encode(images: np.ndarray, batch_size: int, cropped: bool = False) -> np.ndarray:
        batches = raw_inputs.image_batches(images, model.preprocessor, batch_size, cropped)
        return np.concatenate([tower(batch).numpy() for batch in batches])

    return encode


# Of features that are kept: those of 200,000 images of EfficientNet-B0, 100,000 of B7.
_MOST_BYTES = 1 << 30


class EmbedsOnce:
    """A dual encoder that keeps the features of crops: an image that is kept passes no tower again.

    Tasks that share images, in whatever files they lie, share the work. The tower's features are
    kept, from which the embeddings follow by a product of matrices. Beyond 1 GiB the features that
    were not used for longest are dropped.

    Args:
        model: an ``AlignDualEncoder``; all but its images is asked of it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tower = feature_encoder(model)
        # In the order of their last use.
        self._features: dict[bytes, np.ndarray] = {}
        self._num_embedded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def num_embedded(self) -> int:
        """How many images have passed the tower."""
        return self._num_embedded

    def encode_features(
        self, images: np.ndarray, batch_size: int, cropped: bool = True
    ) -> np.ndarray:
        """The tower's features of crops, uint8: ``(images, width)``."""
        keys = [hashlib.sha256(crop.tobytes()).digest() for crop in images]
        new = {key: row for row, key in enumerate(keys) if key not in self._features}
        if new:
            found = self._tower(images[list(new.values())], batch_size, cropped=cropped)
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
        """Like ``AlignDualEncoder.encode_images``, of crops: unit norm, ``(images, dim)``."""
        backbone = self._model.backbone
        features = tf.convert_to_tensor(self.encode_features(images, batch_size, cropped))
        if backbone.image_projection is not None:
            features = backbone.image_projection(features)
        return backbone.normalization(features).numpy()
