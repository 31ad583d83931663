"""Both towers and their projections: embeds images and captions with unit norm."""

import os
from collections.abc import Mapping
from typing import Self

import keras
import keras_hub
import tensorflow as tf

from align_keras import checksums, full_disk
from align_keras.models import loading, precision, presets
from align_keras.models.image_encoder import build_image_encoder
from align_keras.models.text_encoder import build_text_encoder
from align_keras.preprocessing.fields import (
    IMAGE_FEATURES,
    MODEL_INPUTS,
    TEXT_FEATURES,
    TEXT_INPUTS,
)


@keras.saving.register_keras_serializable(package="align_keras")
class AlignBackbone(keras_hub.models.Backbone):
    """Two towers that embed images and captions in one space (paper, sec. 4.1).

    The text features always go through a linear layer; the image features only if their width
    differs from ``projection_dim`` (sec. 6.1).

    Args:
        image_encoder: an ``ImageEncoder``, or any model from images to ``(batch, width)``.
        text_encoder: a ``TextEncoder``, or any model from the text inputs to
            ``(batch, width)``.
        projection_dim: width of the shared space.
        dtype: precision policy of the projections, the global one by default. The towers have
            their own. Embeddings are float32 under every policy.
        image_feature_dropout: fraction of the image features that training sets to zero; meant for
            frozen towers and a few thousand pairs. The paper does not mention it.

    Inputs: a dict of ``images`` ``(batch, height, width, 3)`` and ``token_ids``,
    ``segment_ids``, ``padding_mask`` ``(batch, sequence)``.
    Outputs: a dict of ``image_embeddings`` and ``text_embeddings``, float32,
    ``(batch, projection_dim)``, of unit norm.

    Example:
    ```python
    backbone = align_keras.AlignBackbone(
        align_keras.build_image_encoder("efficientnet_b0"),
        align_keras.build_text_encoder("bert_mini", vocabulary_size=1000),
        projection_dim=320,
    )
    backbone.encode_images(np.zeros((2, 289, 289, 3))).shape  # (2, 320)
    backbone.save_to_preset("b0_mini")
    same = align_keras.AlignBackbone.from_preset("b0_mini")
    ```
    """

    def __init__(
        self,
        image_encoder: keras.Model,
        text_encoder: keras.Model,
        projection_dim: int,
        dtype: str | keras.DTypePolicy | None = None,
        image_feature_dropout: float = 0.0,
        **kwargs,
    ) -> None:
        # === Layers ===
        image_projection = None
        if image_encoder.output_shape[-1] != projection_dim:
            image_projection = keras.layers.Dense(
                projection_dim, dtype=dtype, name="image_projection"
            )
        text_projection = keras.layers.Dense(projection_dim, dtype=dtype, name="text_projection")
        image_dropout = None
        if image_feature_dropout:
            image_dropout = keras.layers.Dropout(
                image_feature_dropout, dtype=dtype, name="image_dropout"
            )
        # In float32 under every precision policy: the square of the norm overflows float16.
        normalization = keras.layers.UnitNormalization(dtype="float32", name="normalization")

        # === Functional Model ===
        images = keras.Input((None, None, 3), name="images")
        text_inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TEXT_INPUTS}
        image_features, text_features = image_encoder(images), text_encoder(text_inputs)
        if image_dropout is not None:
            image_features = image_dropout(image_features)
        if image_projection is not None:
            image_features = image_projection(image_features)
        text_features = text_projection(text_features)
        super().__init__(
            inputs={"images": images, **text_inputs},
            outputs={
                "image_embeddings": normalization(image_features),
                "text_embeddings": normalization(text_features),
            },
            dtype=dtype,
            **kwargs,
        )
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.normalization = normalization
        self.image_dropout = image_dropout

        # === Config ===
        self.projection_dim = projection_dim
        self.image_feature_dropout = image_feature_dropout

    def encode_images(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Embeds images, ``(batch, height, width, 3)``: unit norm, ``(batch, projection_dim)``."""
        features = self.image_encoder(images, training=training)
        return self.project_image_features(features, training)

    def encode_texts(
        self, text_inputs: Mapping[str, tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """Embeds tokenised captions: unit norm, ``(batch, projection_dim)``."""
        text_inputs = {name: text_inputs[name] for name in TEXT_INPUTS}
        return self._project_text(self.text_encoder(text_inputs, training=training))

    def embed_pairs(
        self, inputs: Mapping[str, tf.Tensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Like a call of the backbone, but the inputs may be the features of a tower.

        Args:
            inputs: the inputs of the class. ``image_features`` or ``text_features``, float32,
                ``(batch, width)``, may replace the inputs of a tower. Without any input of a tower,
                its embeddings are left out.
            training: as in a call.
        """
        if inputs.keys() >= set(MODEL_INPUTS):
            return self(inputs, training=training)
        found = {}
        if IMAGE_FEATURES in inputs:
            found["image_embeddings"] = self.project_image_features(
                inputs[IMAGE_FEATURES], training
            )
        elif "images" in inputs:
            found["image_embeddings"] = self.encode_images(inputs["images"], training)
        if TEXT_FEATURES in inputs:
            found["text_embeddings"] = self._project_text(inputs[TEXT_FEATURES])
        elif inputs.keys() >= set(TEXT_INPUTS):
            found["text_embeddings"] = self.encode_texts(inputs, training)
        return found

    def project_image_features(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Embeds the image tower's features: unit norm, ``(batch, projection_dim)``."""
        if self.image_dropout is not None:
            features = self.image_dropout(features, training=training)
        if self.image_projection is not None:
            features = self.image_projection(features)
        return self.normalization(features)

    def _project_text(self, features):
        return self.normalization(self.text_projection(features))

    def check_room(self, folder: str | os.PathLike) -> None:
        """Raises a NoSpaceError if the weights do not fit into a folder."""
        # At most four bytes per weight; HDF5 adds a little.
        full_disk.check_room(folder, int(4.2 * self.count_params()) + (1 << 20))

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            **super().get_config(),
            "image_encoder": keras.saving.serialize_keras_object(self.image_encoder),
            "text_encoder": keras.saving.serialize_keras_object(self.text_encoder),
            "projection_dim": self.projection_dim,
            "image_feature_dropout": self.image_feature_dropout,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Self:
        """Builds a backbone from ``get_config``'s dictionary, in its saved precision."""
        with precision.saved_policy(config.get("dtype")) as dtype:
            towers = {
                name: keras.saving.deserialize_keras_object(config[name], custom_objects)
                for name in ("image_encoder", "text_encoder")
            }
            frozen = [tower for tower in towers.values() if not tower.trainable]
            backbone = cls(**{**config, **towers, "trainable": True, "dtype": dtype})
        for tower in frozen:
            # Setting the backbone trainable has thawed the layers of the tower, but not the tower
            # itself. Keras passes on only a change of the value.
            tower.trainable = True
            tower.trainable = False
        if not config.get("trainable", True):
            backbone.trainable = False
        return backbone

    def save_to_preset(self, preset_dir: str | os.PathLike, max_shard_size: float = 10) -> None:
        """Writes the backbone as a preset, as keras-hub does, with ``checksums`` of its files.

        Args:
            preset_dir: a folder, which is created if necessary.
            max_shard_size: gigabytes per file of weights.

        Raises:
            NoSpaceError: if the disk is full.
        """
        with checksums.writing_into(preset_dir) as folder:
            self.check_room(folder)
            super().save_to_preset(str(folder), max_shard_size)

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike,
        load_weights: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> Self:
        """Loads a backbone from a preset, or from a checkpoint in Hugging Face's layout.

        Args:
            preset: a local folder, ``"hf://USER/MODEL"`` or ``"kaggle://..."``, written by
                ``save_to_preset`` or holding an ``AlignModel`` of Hugging Face.
            load_weights: whether to load the weights; if False, they are random.
            dtype: precision policy, such as ``"mixed_bfloat16"``; the global one by default.

        Returns:
            An ``AlignBackbone``.

        Raises:
            InputError: if it is not a preset of this class, or the hub cannot be reached.
            MissingInputError: if the folder or one of its files is missing.
        """
        with loading.opened(preset, cls, dtype=dtype) as loader:
            return loader.load_backbone(cls, load_weights, dtype=dtype)


def build_backbone(
    preset: str,
    vocabulary_size: int | None = None,
    sequence_length: int | None = None,
    **image_encoder_options,
) -> AlignBackbone:
    """Builds a named size of ``align_keras.models.presets.PRESETS``, with random weights.

    Args:
        preset: name of the size, such as ``"align_b7_base"``.
        vocabulary_size: number of word pieces; by default that of the preset.
        sequence_length: maximum number of word pieces per caption; by default that of the preset.
        **image_encoder_options: further arguments of ``ImageEncoder``.

    Returns:
        An ``AlignBackbone``.

    Raises:
        ValueError: if the preset does not exist.
    """
    size = presets.find(presets.PRESETS, preset, "preset")
    return AlignBackbone(
        build_image_encoder(size["image_encoder"], **image_encoder_options),
        build_text_encoder(
            size["text_encoder"],
            vocabulary_size or size["vocabulary_size"],
            sequence_length or size["sequence_length"],
        ),
        projection_dim=size["projection_dim"],
        name=preset,
    )
