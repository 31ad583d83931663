"""The BERT tower: converts word pieces to the [CLS] vector."""

import functools
from collections.abc import Mapping
from typing import Self

import keras
import keras_hub
import tensorflow as tf

from align_keras import keras_internals
from align_keras.layers.rematerialization import rematerialized
from align_keras.models import precision, presets


@keras.saving.register_keras_serializable(package="align_keras")
class TextEncoder(keras.Model):
    """BERT's last hidden state at [CLS] (paper, sec. 4.1).

    BERT's own tanh pooler is left out. The paper's linear layer, in ``AlignBackbone``, replaces it.

    Args:
        backbone: a ``keras_hub.models.BertBackbone``. Its layers are used, not copied; the
            pooler is left out of this model's weights.
        approximate_gelu: whether the GELU of the feed-forward layers is the tanh approximation or
            exact. Google's code had the exact GELU when the first BERTs were published
            (google-research/bert, October 2018), and the approximation since its commit bee6030.
            keras-hub uses the approximation for all of its BERTs. Hugging Face's BERTs and the
            public ALIGN checkpoint use the exact GELU.
        pooling: ``"cls"``, or ``"mean"`` for the mean of the hidden states over a caption's word
            pieces, including [CLS] and [SEP]. The BERTs of sentence-transformers were trained with
            ``"mean"``.

    With ``trainable = False`` the tower computes as in inference even during training, and no
    gradient passes through it. Training then costs only a forward pass of the tower.

    With ``rematerialize = True`` training keeps only the inputs of each block (see
    ``ContrastiveModel.compile``).

    Input: ``token_ids``, ``segment_ids``, ``padding_mask``, int32, ``(batch, sequence)``.
    Output: features, ``(batch, hidden_dim)``.

    Example:
    ```python
    encoder = align_keras.build_text_encoder("bert_mini", vocabulary_size=1000)
    ones = np.ones((2, 16), "int32")
    encoder({"token_ids": ones, "segment_ids": 0 * ones, "padding_mask": ones}).shape  # (2, 256)
    ```
    """

    def __init__(
        self,
        backbone: keras_hub.models.BertBackbone,
        approximate_gelu: bool = True,
        pooling: str = "cls",
        **kwargs,
    ) -> None:
        if pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', not {pooling!r}")
        # === Functional Model ===
        hidden_states = backbone.output["sequence_output"]
        super().__init__(
            inputs=backbone.input,
            outputs=_pool(hidden_states, backbone.input["padding_mask"], pooling),
            **kwargs,
        )
        embed = keras.Model(backbone.input, backbone.transformer_layers[0].input[0])
        # In a function, since Keras would save the layers of an attribute twice.
        self._parts = lambda: (embed, backbone.transformer_layers)
        self.rematerialize = False
        # keras-hub has no argument for the activation.
        gelu = functools.partial(keras.activations.gelu, approximate=approximate_gelu)
        for block in backbone.transformer_layers:
            keras_internals.feed_forward_layers(block)[0].activation = gelu

        # === Config ===
        self._backbone_config = keras.saving.serialize_keras_object(backbone)
        # The tower uses the precision policy of the given layers.
        self._backbone_config["config"].pop("dtype", None)
        self.dtype_policy = backbone.dtype_policy
        self.approximate_gelu = approximate_gelu
        self.pooling = pooling

    def call(
        self,
        inputs: Mapping[str, tf.Tensor],
        training: bool | None = None,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The features of a batch of captions; see the class."""
        if training and not self.trainable:
            return tf.stop_gradient(super().call(inputs, training=False, mask=mask))
        if not (training and self.rematerialize):
            return super().call(inputs, training=training, mask=mask)
        embed, blocks = self._parts()
        hidden_states = embed(inputs, training=True)
        for block in blocks:
            hidden_states = rematerialized(
                block, hidden_states, padding_mask=inputs["padding_mask"]
            )
        return _pool(hidden_states, inputs["padding_mask"], self.pooling)

    @property
    def stages(self) -> list[list[keras.Variable]]:
        """The trainable weights by depth: the embedding weights, then the weights of each block."""
        embed, blocks = self._parts()
        return [part.trainable_variables for part in (embed, *blocks)]

    @property
    def backbone_config(self) -> dict:
        """The arguments with which the ``BertBackbone`` was created, as a dict."""
        return dict(self._backbone_config["config"])

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            "backbone": self._backbone_config,
            "approximate_gelu": self.approximate_gelu,
            # Stored only if it is not the default, since fingerprints were stored before the option
            # existed.
            **({"pooling": self.pooling} if self.pooling != "cls" else {}),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Self:
        """Builds an encoder from ``get_config``'s dictionary, in its saved precision."""
        config = dict(config)
        with precision.saved_policy(config.pop("dtype", None)):
            backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
            return cls(**{**config, "backbone": backbone})


def _pool(hidden_states, padding_mask, pooling):
    if pooling == "cls":
        return hidden_states[:, 0, :]
    mask = keras.ops.cast(padding_mask, hidden_states.dtype)[..., None]
    total = keras.ops.sum(hidden_states * mask, axis=1)
    return total / keras.ops.maximum(keras.ops.sum(mask, axis=1), 1)


def build_text_encoder(
    name: str, vocabulary_size: int = 100_000, sequence_length: int = 64, **options
) -> TextEncoder:
    """Builds a named BERT of ``align_keras.models.presets``, with random weights.

    Args:
        name: ``"bert_tiny"``, ``"bert_mini"``, ``"bert_small"``, ``"bert_medium"``,
            ``"bert_base"`` or ``"bert_large"``.
        vocabulary_size: number of word pieces; by default that of the paper.
        sequence_length: maximum number of word pieces per caption.
        **options: further arguments of ``TextEncoder``.

    Returns:
        A ``TextEncoder``.

    Raises:
        ValueError: if the name is unknown.
    """
    backbone = keras_hub.models.BertBackbone(
        **presets.find(presets.TEXT_ENCODERS, name, "text encoder"),
        vocabulary_size=vocabulary_size,
        max_sequence_length=sequence_length,
    )
    return TextEncoder(backbone, **{"name": "text_encoder", **options})
