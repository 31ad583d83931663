"""The EfficientNet tower: images to pooled features."""

import itertools
import math
import re

import keras
import keras_hub
import tensorflow as tf

from align_keras.layers.batch_norm import FusedBatchNormalization
from align_keras.layers.rematerialization import rematerialized
from align_keras.layers.silu import inference, silu
from align_keras.models import presets


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
        first_block_residuals: whether the first block of a stage has a residual where its
            shapes allow one, as in the original. Hugging Face's ``AlignModel`` never has; at
            the published widths no shape allows one, so that it makes no difference there.

    With ``rematerialize = True`` training keeps only what enters each block (see
    ``ContrastiveModel.compile``).

    Input: ``images``, float, ``(batch, height, width, 3)``, scaled to -1 .. 1.
    Output: features, ``(batch, width of the last stage)``.

    Example:
    ```python
    encoder = align_keras.build_image_encoder("efficientnet_b0")
    encoder(np.zeros((2, 289, 289, 3))).shape  # (2, 320)
    ```
    """

    def __init__(
        self,
        backbone,
        batch_norm_momentum=0.99,
        synchronized_batch_norm=True,
        first_block_residuals=True,
        **kwargs,
    ):
        # === Layers ===
        pooling = keras.layers.GlobalAveragePooling2D(name="pooling")

        # === Functional Model ===
        tower, cuts = _rewire(backbone, first_block_residuals)
        super().__init__(inputs=tower.input, outputs=pooling(tower.output), **kwargs)
        parts = [keras.Model(*ends) for ends in itertools.pairwise([*cuts, self.output])]
        # In a function, since Keras would save the layers of an attribute once more.
        self._parts = lambda: parts
        self.rematerialize = False
        for layer in self._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                # keras-hub makes the layers; this class has the same weights and arguments.
                layer.__class__ = FusedBatchNormalization
                layer.momentum = batch_norm_momentum
            elif getattr(layer, "activation", None) is keras.activations.silu:
                layer.activation = silu

        # === Config ===
        # The config alone: holding the backbone would bring its unused top layers' weights.
        self._backbone_config = keras.saving.serialize_keras_object(backbone)
        # What a tower computes in is decided where it is built.
        self._backbone_config["config"].pop("dtype", None)
        self.batch_norm_momentum = batch_norm_momentum
        self.synchronized_batch_norm = synchronized_batch_norm
        self.first_block_residuals = first_block_residuals

    def call(self, inputs, training=None, mask=None):
        """Features of a batch of images; see the class."""
        if not training:
            with inference():
                return super().call(inputs, training=training, mask=mask)
        if not self.rematerialize:
            return super().call(inputs, training=training, mask=mask)
        first, *blocks, pooling = self._parts()
        features = first(tf.convert_to_tensor(inputs), training=True)
        for block in blocks:
            features = rematerialized(block, features)
        return pooling(features)

    @property
    def synchronized_batch_norm(self):
        """Whether batch statistics are those of the global batch; may be set."""
        return self._synchronized_batch_norm

    @synchronized_batch_norm.setter
    def synchronized_batch_norm(self, value):
        self._synchronized_batch_norm = value
        for layer in self._batch_norms():
            layer.synchronized = value

    @property
    def frozen_statistics(self):
        """Whether training, too, normalises by the moving statistics, and leaves them; may be set.

        Scales and offsets are trained all the same. It is a way to train, not saved.
        """
        return all(layer.frozen_statistics for layer in self._batch_norms())

    @frozen_statistics.setter
    def frozen_statistics(self, value):
        for layer in self._batch_norms():
            layer.frozen_statistics = value

    def _batch_norms(self):
        return [
            layer for layer in self._flatten_layers() if isinstance(layer, FusedBatchNormalization)
        ]

    @property
    def backbone_config(self):
        """The arguments that the ``EfficientNetBackbone`` was made with, a dict."""
        return dict(self._backbone_config["config"])

    @property
    def has_first_block_residuals(self):
        """Whether the first block of any stage has a residual."""
        return any(
            re.fullmatch(r"block\d+a_add", layer.name)
            or (
                re.fullmatch(r"block\d+a_", layer.name)
                and not layer.nores
                and layer.strides == 1
                and layer.input_filters == layer.output_filters
            )
            for layer in self.layers
        )

    def get_config(self):
        """The constructor's arguments, serialised."""
        return {
            "backbone": self._backbone_config,
            "batch_norm_momentum": self.batch_norm_momentum,
            "synchronized_batch_norm": self.synchronized_batch_norm,
            "first_block_residuals": self.first_block_residuals,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds an encoder from ``get_config``'s dictionary."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})


def _rewire(backbone, first_block_residuals):
    """The backbone's own layers up to its top convolution, with two changes of wiring.

    Returns:
        The model, and its input, the outputs of its stem and of each block: a list of tensors.
    """
    # keras-hub's stem pads both sides or, with these two arguments, none. The original pads
    # the bottom and the right, which at odd sizes such as 289 falls outside of the stride.
    unpadded = backbone.stem_conv_padding == "valid" and not backbone.include_stem_padding
    stem_padding = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="stem_padding")
    ends = {}

    def call_layer(layer, *args, **kwargs):
        if layer.name == "stem_conv" and unpadded:
            args = (stem_padding(args[0]), *args[1:])
        if not first_block_residuals and re.fullmatch(r"block\d+a_", layer.name):
            layer.nores = True
        if not first_block_residuals and re.fullmatch(r"block\d+a_add", layer.name):
            return args[0][0]  # of a "v1" block
        output = layer(*args, **kwargs)
        # A block's last layer stays.
        ends[re.match(r"[^_]*", layer.name)[0]] = output
        return output

    tower = keras.models.clone_model(
        keras.Model(backbone.input, backbone.get_layer("top_conv").input),
        clone_function=lambda layer: layer,
        call_function=call_layer,
    )
    blocks = [output for name, output in ends.items() if name.startswith(("stem", "block"))]
    return tower, [tower.input, *blocks]


def build_image_encoder(name, **options):
    """Builds a named EfficientNet of ``align_keras.presets``, with random weights.

    Args:
        name: ``"efficientnet_b0"`` to ``"efficientnet_b7"``, ``"efficientnet_l2"`` or
            ``"efficientnet_nano"``.
        **options: further arguments of ``ImageEncoder``.

    Returns:
        An ``ImageEncoder``.

    Raises:
        ValueError: if there is no such name.
    """
    size = presets.find(presets.IMAGE_ENCODERS, name, "image encoder")
    backbone = keras_hub.models.EfficientNetBackbone(**{**size, "dropout": keras_hub_dropout(size)})
    return ImageEncoder(backbone, **{"name": "image_encoder", **options})


def keras_hub_dropout(size):
    """The ``dropout`` that gives the last block the wanted rate.

    keras-hub scales a block's rate by its place over the number of blocks *before* depth
    scaling, which for L2 would end above 1.
    """
    repeats = size["stackwise_num_repeats"]
    scaled = [math.ceil(size["depth_coefficient"] * count) for count in repeats]
    return size["dropout"] * sum(repeats) / sum(scaled)
