"""The image tower's features, and a model that computes them once per image."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.preprocessing import raw_inputs


def feature_encoder(model: Any) -> Callable[..., np.ndarray]:
    """Like ``model.encode_images``, but returns the image tower's features before the projection.

    The paper trains its classifiers on these features. The returned function gives float32,
    ``(images, width)``.
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


class EmbedsOnce:
    """A dual encoder that keeps the features of every crop: the tower processes each image once.

    Tasks that share images also share the work, even if the images are in different files. The
    tower's features are kept, since the embeddings follow from them by a matrix product.

    Args:
        model: an ``AlignDualEncoder``; everything but images is passed on to it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tower = feature_encoder(model)
        self._features: dict[bytes, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def num_embedded(self) -> int:
        """The number of different images that the tower has processed."""
        return len(self._features)

    def encode_features(
        self, images: np.ndarray, batch_size: int, cropped: bool = True
    ) -> np.ndarray:
        """The tower's features of uint8 crops: ``(images, width)``."""
        keys = [hashlib.sha256(crop.tobytes()).digest() for crop in images]
        new = {key: row for row, key in enumerate(keys) if key not in self._features}
        if new:
            found = self._tower(images[list(new.values())], batch_size, cropped=cropped)
            self._features.update(zip(new, found, strict=True))
        return np.stack([self._features[key] for key in keys])

    def encode_images(
        self, images: np.ndarray, batch_size: int = 32, cropped: bool = True
    ) -> np.ndarray:
        """Like ``AlignDualEncoder.encode_images``, for crops: unit norm, ``(images, dim)``."""
        backbone = self._model.backbone
        features = tf.convert_to_tensor(self.encode_features(images, batch_size, cropped))
        if backbone.image_projection is not None:
            features = backbone.image_projection(features)
        return backbone.normalization(features).numpy()
