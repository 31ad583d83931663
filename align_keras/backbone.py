"""Both towers and their projections: images and captions to unit-norm embeddings."""

import math

import keras
import keras_hub

from align_keras import presets
from align_keras.image_encoder import ImageEncoder
from align_keras.text_encoder import TextEncoder

TEXT_INPUTS = ("token_ids", "segment_ids", "padding_mask")


@keras.saving.register_keras_serializable(package="align_keras")
class AlignBackbone(keras.Model):
    """Two towers that embed images and captions in one space (paper, sec. 4.1).

    The text features always pass a linear layer; the image features only where their width
    differs from ``projection_dim`` (sec. 6.1).

    Args:
        image_encoder: an ``ImageEncoder``, or any model from images to ``(batch, width)``.
        text_encoder: a ``TextEncoder``, or any model from the text inputs to
            ``(batch, width)``.
        projection_dim: width of the shared space.

    Inputs: a dict of ``images`` ``(batch, height, width, 3)`` and ``token_ids``,
    ``segment_ids``, ``padding_mask`` ``(batch, sequence)``.
    Outputs: a dict of ``image_embeddings`` and ``text_embeddings``, float32,
    ``(batch, projection_dim)``, of unit norm.
    """

    def __init__(self, image_encoder, text_encoder, projection_dim, **kwargs):
        # === Layers ===
        image_projection = None
        if image_encoder.output_shape[-1] != projection_dim:
            image_projection = keras.layers.Dense(projection_dim, name="image_projection")
        text_projection = keras.layers.Dense(projection_dim, name="text_projection")
        # In float32 under every precision policy: the norm's square overflows float16.
        normalization = keras.layers.UnitNormalization(dtype="float32", name="normalization")

        # === Functional Model ===
        images = keras.Input((None, None, 3), name="images")
        text_inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TEXT_INPUTS}
        image_features = image_encoder(images)
        if image_projection is not None:
            image_features = image_projection(image_features)
        text_features = text_projection(text_encoder(text_inputs))
        super().__init__(
            inputs={"images": images, **text_inputs},
            outputs={
                "image_embeddings": normalization(image_features),
                "text_embeddings": normalization(text_features),
            },
            **kwargs,
        )
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.normalization = normalization

        # === Config ===
        self.projection_dim = projection_dim

    def encode_images(self, images, training=False):
        """Embeds ``(batch, height, width, 3)`` images: unit norm, ``(batch, projection_dim)``."""
        features = self.image_encoder(images, training=training)
        if self.image_projection is not None:
            features = self.image_projection(features)
        return self.normalization(features)

    def encode_texts(self, text_inputs, training=False):
        """Embeds tokenised captions: unit norm, ``(batch, projection_dim)``."""
        text_inputs = {name: text_inputs[name] for name in TEXT_INPUTS}
        return self.normalization(
            self.text_projection(self.text_encoder(text_inputs, training=training))
        )

    def get_config(self):
        """The constructor's arguments, serialised."""
        return {
            "image_encoder": keras.saving.serialize_keras_object(self.image_encoder),
            "text_encoder": keras.saving.serialize_keras_object(self.text_encoder),
            "projection_dim": self.projection_dim,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds a backbone from ``get_config``'s dictionary."""
        towers = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("image_encoder", "text_encoder")
        }
        return cls(**{**config, **towers})


def build_backbone(preset, vocabulary_size=None, sequence_length=None, **image_encoder_options):
    """Builds a named size of ``align_keras.presets.PRESETS``, with random weights.

    Args:
        preset: a name, such as ``"align_b7_base"``.
        vocabulary_size: word pieces, if not the preset's own number.
        sequence_length: word pieces a caption at most, if not the preset's own number.
        **image_encoder_options: further arguments of ``ImageEncoder``.

    Returns:
        An ``AlignBackbone``.

    Raises:
        ValueError: if there is no such preset.
    """
    if preset not in presets.PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(sorted(presets.PRESETS))}")
    size = presets.PRESETS[preset]
    image_size = presets.IMAGE_ENCODERS[size["image_encoder"]]
    image_backbone = keras_hub.models.EfficientNetBackbone(
        **{**image_size, "dropout": _keras_hub_dropout(image_size)}
    )
    text_backbone = keras_hub.models.BertBackbone(
        **presets.TEXT_ENCODERS[size["text_encoder"]],
        vocabulary_size=vocabulary_size or size["vocabulary_size"],
        max_sequence_length=sequence_length or size["sequence_length"],
    )
    return AlignBackbone(
        image_encoder=ImageEncoder(image_backbone, name="image_encoder", **image_encoder_options),
        text_encoder=TextEncoder(text_backbone, name="text_encoder"),
        projection_dim=size["projection_dim"],
        name=preset,
    )


def _keras_hub_dropout(image_size):
    """The ``dropout`` that gives the last block the wanted rate.

    keras-hub scales a block's rate by its place over the number of blocks *before* depth
    scaling, which for L2 would end above 1.
    """
    repeats = image_size["stackwise_num_repeats"]
    scaled = [math.ceil(image_size["depth_coefficient"] * count) for count in repeats]
    return image_size["dropout"] * sum(repeats) / sum(scaled)
