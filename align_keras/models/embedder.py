"""Embeds raw images and captions, in TensorFlow or, on CPUs, in LiteRT."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from align_keras import progress
from align_keras.models import litert
from align_keras.models.backbone import AlignBackbone
from align_keras.preprocessing import raw_inputs
from align_keras.preprocessing.preprocessor import AlignPreprocessor


class Embedder(keras.Model):
    """A model with a backbone and a preprocessor that embeds raw images and captions.

    Attributes:
        backbone: an ``AlignBackbone``.
        preprocessor: an ``AlignPreprocessor`` or None.
    """

    backbone: AlignBackbone
    preprocessor: AlignPreprocessor | None

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._traced: dict[tuple[str, int, int], Callable] = {}
        self._litert: litert.LiteRTTowers | None = None

    def encode_images(self, images: Any, batch_size: int = 32, cropped: bool = False) -> np.ndarray:
        """Embeds images.

        Args:
            images: floats ``(count, image_size, image_size, 3)`` that are already scaled for the
                model; integers ``(count, height, width, 3)``, 0 .. 255; a list of paths, encoded
                images (bytes), PIL images or integer arrays; or a ``tf.data.Dataset`` of these or
                of dicts with a field ``images``.
            batch_size: images at a time; a batched dataset keeps its own.
            cropped: whether integers are already crops, as from ``preprocessor.centre_crop``, of
                shape ``(count, image_size, image_size, 3)``. Crops are only scaled.

        Returns:
            A NumPy array, float32, ``(count, projection_dim)``, of unit norm.

        Raises:
            ItemError: if an item is not an image; states its index in the list.
            MissingItemError: if an image file does not exist.
        """
        batches = raw_inputs.image_batches(images, self.preprocessor, batch_size, cropped)
        if self._litert is None:
            embeddings = self._in_tensorflow(self._embed_crops, batches)
        else:
            embeddings = self._in_tensorflow(
                self.backbone.project_image_features, self._features_in_litert(batches)
            )
        return _joined(embeddings, self.backbone.projection_dim)

    def encode_image_features(
        self, images: Any, batch_size: int = 32, cropped: bool = False
    ) -> np.ndarray:
        """Computes the image tower's features before the projection.

        The paper trains its classifiers on these features.

        Args:
            images: as in ``encode_images``. The errors are also the same.
            batch_size: images at a time.
            cropped: as in ``encode_images``.

        Returns:
            A NumPy array, float32, ``(count, width of the tower)``.
        """
        batches = raw_inputs.image_batches(images, self.preprocessor, batch_size, cropped)
        if self._litert is None:
            features = self._in_tensorflow(self._features_of_crops, batches)
        else:
            features = self._features_in_litert(batches)
        return _joined(features, self.backbone.image_encoder.output_shape[-1])

    def encode_texts(self, texts: Any, batch_size: int = 256) -> np.ndarray:
        """Embeds captions.

        Args:
            texts: a list of strings, or a single one; a dict of ``token_ids``, ``segment_ids``
                and ``padding_mask``, ``(count, sequence)``; or a ``tf.data.Dataset`` of strings
                or of dicts with a field ``captions``.
            batch_size: captions at a time; a batched dataset keeps its own.

        Returns:
            A NumPy array, float32, ``(count, projection_dim)``, of unit norm.

        Raises:
            ItemError: if an item is not a string; states its index in the list.
        """
        if isinstance(texts, tf.data.Dataset | dict):
            return self._encode_captions(texts, batch_size)
        # Batches hold captions of similar length, since each caption is padded to the longest one
        # in its batch.
        captions = raw_inputs.caption_list(texts)
        order = sorted(range(len(captions)), key=lambda row: len(captions[row]))
        embeddings = self._encode_captions([captions[row] for row in order], batch_size)
        found = np.empty_like(embeddings)
        found[order] = embeddings
        return found

    def use_runtime(self, runtime: str) -> None:
        """Chooses the library that computes embeddings from now on.

        LiteRT uses a copy of the weights, which does not follow later changes. Training and
        ``predict`` always use TensorFlow, and ``fit`` switches embedding back to TensorFlow.

        Args:
            runtime: ``"tensorflow"`` or ``"litert"``. LiteRT is faster on CPUs and does not use a
                GPU or TPU. Its embeddings are equal to within 1e-5.

        Raises:
            InputError: if there is no such runtime, LiteRT is not installed, or the model does not
                compute in float32.
        """
        litert.check_runtime(runtime)
        self._litert = litert.LiteRTTowers(self.backbone) if runtime == "litert" else None

    def make_train_function(self, force: bool = False) -> Any:
        """Keras's hook: training changes the weights, so embedding returns to TensorFlow."""
        self._litert = None
        return super().make_train_function(force)

    def _encode_captions(self, captions: Any, batch_size: int) -> np.ndarray:
        batches: Iterable[Any] = raw_inputs.caption_batches(captions, self.preprocessor, batch_size)
        if isinstance(captions, list) and len(captions) > batch_size:
            total = -(-len(captions) // batch_size)
            what = f"embedding {len(captions):,} captions"
            batches = progress.watch(batches, what, "batch", total)
        if self._litert is None:
            embeddings = self._in_tensorflow(self.backbone.encode_texts, batches)
        else:
            embeddings = [self._litert.text_embeddings(batch) for batch in batches]
        return _joined(embeddings, self.backbone.projection_dim)

    def _embed_crops(self, images: tf.Tensor) -> tf.Tensor:
        return self.backbone.encode_images(raw_inputs.scaled(images, self.preprocessor))

    def _features_of_crops(self, images: tf.Tensor) -> tf.Tensor:
        return self.backbone.image_encoder(raw_inputs.scaled(images, self.preprocessor))

    def _features_in_litert(self, batches: Iterable[tf.Tensor]) -> list[np.ndarray]:
        assert self._litert is not None
        return [
            self._litert.image_features(raw_inputs.scaled(batch, self.preprocessor))
            for batch in batches
        ]

    def _in_tensorflow(self, encode: Callable, batches: Iterable[Any]) -> list[np.ndarray]:
        # Traced once per function, for all shapes; again if the backbone is replaced.
        key = (encode.__name__, id(self.backbone), id(self.preprocessor))
        if key not in self._traced:
            self._traced[key] = tf.function(encode, reduce_retracing=True, autograph=False)
        return [self._traced[key](batch).numpy() for batch in batches]


def _joined(batches: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(batches) if batches else np.zeros((0, width), "float32")
