"""The EfficientNet tower: images to pooled features."""

import keras


@keras.saving.register_keras_serializable(package="align_keras")
class ImageEncoder(keras.Model):
    """EfficientNet up to the input of its top convolution, averaged over space.

    The paper's tower ends there (sec. 4.1: "without training the 1x1 conv layer in the
    classification head"): 640 wide for B7, 1376 for L2.

    Args:
        backbone: a ``keras_hub.models.EfficientNetBackbone``. Its layers are used, not
            copied; those above the cut are left out of this model's weights.
        batch_norm_momentum: of every batch-norm layer's moving averages. keras-hub's
            "v1" blocks ignore the backbone's own argument, so it is set here.
        synchronized_batch_norm: whether batch statistics are those of the global batch
            instead of each replica's share. The paper does not say which it used; only with
            the global batch's do replicas not change the result.

    Input: ``images``, float, ``(batch, height, width, 3)``, scaled to -1 .. 1.
    Output: features, ``(batch, width of the last stage)``.
    """

    def __init__(
        self,
        backbone,
        batch_norm_momentum=0.99,
        synchronized_batch_norm=True,
        **kwargs,
    ):
        # === Layers ===
        pooling = keras.layers.GlobalAveragePooling2D(name="pooling")

        # === Functional Model ===
        feature_map = backbone.get_layer("top_conv").input
        super().__init__(inputs=backbone.input, outputs=pooling(feature_map), **kwargs)
        for layer in self._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
                layer.synchronized = synchronized_batch_norm

        # === Config ===
        # The config alone: holding the backbone would bring its unused top layers' weights.
        self._backbone_config = keras.saving.serialize_keras_object(backbone)
        self.batch_norm_momentum = batch_norm_momentum
        self.synchronized_batch_norm = synchronized_batch_norm

    def get_config(self):
        """The constructor's arguments, serialised."""
        return {
            "backbone": self._backbone_config,
            "batch_norm_momentum": self.batch_norm_momentum,
            "synchronized_batch_norm": self.synchronized_batch_norm,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds an encoder from ``get_config``'s dictionary."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})
