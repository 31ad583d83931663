"""The BERT tower: word pieces to the [CLS] vector."""

import keras


@keras.saving.register_keras_serializable(package="align_keras")
class TextEncoder(keras.Model):
    """BERT's last hidden state at [CLS] (paper, sec. 4.1).

    BERT's own tanh pooler is left out: the paper's linear layer stands in its place, in
    ``AlignBackbone``.

    Args:
        backbone: a ``keras_hub.models.BertBackbone``. Its layers are used, not copied; the
            pooler is left out of this model's weights.

    Input: ``token_ids``, ``segment_ids``, ``padding_mask``, int32, ``(batch, sequence)``.
    Output: features, ``(batch, hidden_dim)``.
    """

    def __init__(self, backbone, **kwargs):
        # === Functional Model ===
        hidden_states = backbone.output["sequence_output"]
        super().__init__(
            inputs=backbone.input,
            outputs=hidden_states[:, backbone.cls_token_index, :],
            **kwargs,
        )

        # === Config ===
        self._backbone_config = keras.saving.serialize_keras_object(backbone)

    def get_config(self):
        """The constructor's arguments, serialised."""
        return {
            "backbone": self._backbone_config,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds an encoder from ``get_config``'s dictionary."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})
