"""The EfficientNet tower: converts images to pooled features."""

import functools
import itertools
import re
from typing import Self

import keras
import keras_hub
import tensorflow as tf

from align_keras import distribution, keras_internals
from align_keras.layers.batch_norm import HALF, FusedBatchNormalization
from align_keras.layers.rematerialization import rematerialized
from align_keras.layers.silu import inference, silu
from align_keras.models import efficientnet, precision, presets, space_to_batch


@keras.saving.register_keras_serializable(package="align_keras")
class ImageEncoder(keras.Model):
    """EfficientNet, by default up to the input of its top convolution, averaged over space.

    The paper's tower ends there (sec. 4.1: "without training the 1x1 conv layer in the
    classification head"): 640 wide for B7, 1376 for L2.

    Args:
        backbone: a ``keras_hub.models.EfficientNetBackbone``. Its layers are used, not
            copied; those above the cut are left out of this model's weights.
        batch_norm_momentum: momentum of every batch-norm layer's moving averages. keras-hub's
            "v1" blocks ignore the backbone's own argument, so it is set here.
        synchronized_batch_norm: whether batch norm uses statistics of the global batch instead of
            each replica's share. The paper does not state which it used. Only statistics of the
            global batch make the result independent of the number of replicas.
        first_block_residuals: whether the first block of a stage has a residual connection if its
            shapes allow one, as in the original. Hugging Face's ``AlignModel`` never has one. At
            the published widths no shape allows one, so there is no difference.
        top_convolution: whether the features come after the top 1x1 convolution (1,280 wide for
            B0), as in ImageNet classifiers. The paper takes them before it. A frozen tower gives
            better features after it.

    With ``trainable = False`` the tower computes as in inference even during training, and no
    gradient passes through it. Training then costs only a forward pass of the tower.

    With ``rematerialize = True`` training keeps only the inputs of each block (see
    ``ContrastiveModel.compile``). ``space_to_batch`` decides whether training cuts images into
    chunks in the first stages (``align_keras.models.space_to_batch``); ``None``, the default, means
    on TPUs only. Neither setting changes the results, and neither is saved.

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
        backbone: keras_hub.models.EfficientNetBackbone,
        batch_norm_momentum: float = 0.99,
        synchronized_batch_norm: bool = True,
        first_block_residuals: bool = True,
        top_convolution: bool = False,
        **kwargs,
    ) -> None:
        # === Layers ===
        policy = efficientnet.policy_of(backbone)
        pooling = keras.layers.GlobalAveragePooling2D(dtype=policy, name="pooling")

        # === Functional Model ===
        tower, cuts = efficientnet.rewire(backbone, first_block_residuals, top_convolution)
        super().__init__(inputs=tower.input, outputs=pooling(tower.output), **kwargs)
        parts = [keras.Model(*ends) for ends in itertools.pairwise([*cuts, self.output])]
        # Kept inside a function, since Keras would save the layers twice if they were an attribute.
        self._parts = lambda: parts
        self.rematerialize = False
        self.space_to_batch: bool | None = None
        for layer in keras_internals.layers_of(self):
            if isinstance(layer, keras.layers.BatchNormalization):
                keras_internals.recast(layer, FusedBatchNormalization)
                if layer.variable_dtype in HALF:
                    keras_internals.build_again(layer, f"mixed_{layer.variable_dtype}")
                layer.momentum = batch_norm_momentum
            elif getattr(layer, "activation", None) is keras.activations.silu:
                layer.activation = silu

        # === Config ===
        # Only the config: keeping the backbone would also keep the weights of its unused top
        # layers.
        self._backbone_config = keras.saving.serialize_keras_object(backbone)
        # The tower uses the precision policy of the given layers.
        self._backbone_config["config"].pop("dtype", None)
        self.dtype_policy = policy
        self.batch_norm_momentum = batch_norm_momentum
        self.synchronized_batch_norm = synchronized_batch_norm
        self.first_block_residuals = first_block_residuals
        self.top_convolution = top_convolution

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The features of a batch of images; see the class."""
        is_frozen = training and not self.trainable
        # keras-hub's blocks create layers, such as `Add`, during the call.
        with precision.dtype_policy(self.dtype_policy):
            features = self._features(inputs, training and not is_frozen, mask)
        # A gradient tape does not know that the layers are frozen, and would go back through them.
        return tf.stop_gradient(features) if is_frozen else features

    def _features(self, inputs, training, mask):
        if not training:
            with inference():
                return super().call(inputs, training=training, mask=mask)
        images = tf.convert_to_tensor(inputs)
        stem, *blocks, top = self._parts()
        cuts = distribution.is_on_tpu() if self.space_to_batch is None else self.space_to_batch
        chunks = space_to_batch.count_chunks(stem, blocks[0], images) if cuts else 1
        if chunks == 1 and not self.rematerialize:
            return super().call(inputs, training=training, mask=mask)
        if chunks > 1:
            features = space_to_batch.call_stem(stem, images, chunks)
        else:
            features = stem(images, training=True)
        for block in blocks:
            if chunks > 1 and not space_to_batch.can_cut(block, features.shape[2]):
                features, chunks = space_to_batch.join(features, chunks), 1
            call = block
            if chunks > 1:
                call = functools.partial(space_to_batch.call_block, block, chunks=chunks)
            if self.rematerialize:
                features = rematerialized(block, features, call=call)
            else:
                features = call(features, training=True)
        features = features if chunks == 1 else space_to_batch.join(features, chunks)
        return top(features, training=True)

    @property
    def synchronized_batch_norm(self) -> bool:
        """Whether batch statistics are those of the global batch; can be set."""
        return self._synchronized_batch_norm

    @synchronized_batch_norm.setter
    def synchronized_batch_norm(self, value: bool) -> None:
        self._synchronized_batch_norm = value
        for layer in self._batch_norms():
            layer.synchronized = value

    @property
    def frozen_statistics(self) -> bool:
        """Whether training also uses the moving statistics, without updating them; can be set.

        Scales and offsets are still trained. This is a training option and is not saved.
        """
        return all(layer.frozen_statistics for layer in self._batch_norms())

    @frozen_statistics.setter
    def frozen_statistics(self, value: bool) -> None:
        for layer in self._batch_norms():
            layer.frozen_statistics = value

    def _batch_norms(self):
        return [
            layer
            for layer in keras_internals.layers_of(self)
            if isinstance(layer, FusedBatchNormalization)
        ]

    @property
    def stages(self) -> list[list[keras.Variable]]:
        """The trainable weights by depth: the stem's weights, then the weights of each stage."""
        found: dict[str, list[keras.Variable]] = {}
        stem, *blocks, top = self._parts()
        stage = ""
        for block in (*blocks, top):  # a top convolution belongs to the last stage
            match = re.match(r"block\d+", block.layers[-1].name)
            stage = match[0] if match else stage
            found.setdefault(stage, []).extend(block.trainable_variables)
        return [stem.trainable_variables, *found.values()]

    @property
    def backbone_config(self) -> dict:
        """The arguments with which the ``EfficientNetBackbone`` was created, as a dict."""
        return dict(self._backbone_config["config"])

    @property
    def has_first_block_residuals(self) -> bool:
        """Whether the first block of any stage has a residual connection."""
        return efficientnet.has_first_block_residuals(self)

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            "backbone": self._backbone_config,
            "batch_norm_momentum": self.batch_norm_momentum,
            "synchronized_batch_norm": self.synchronized_batch_norm,
            "first_block_residuals": self.first_block_residuals,
            # Stored only if it is on, since fingerprints were stored before the option existed.
            **({"top_convolution": True} if self.top_convolution else {}),
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


def build_image_encoder(name: str, **options) -> ImageEncoder:
    """Builds a named EfficientNet of ``align_keras.models.presets``, with random weights.

    Args:
        name: ``"efficientnet_b0"`` to ``"efficientnet_b7"``, ``"efficientnet_l2"`` or
            ``"efficientnet_nano"``.
        **options: further arguments of ``ImageEncoder``.

    Returns:
        An ``ImageEncoder``.

    Raises:
        ValueError: if the name is unknown.
    """
    size = presets.find(presets.IMAGE_ENCODERS, name, "image encoder")
    dropout = efficientnet.keras_hub_dropout(
        size["dropout"], size["depth_coefficient"], size["stackwise_num_repeats"]
    )
    backbone = keras_hub.models.EfficientNetBackbone(**{**size, "dropout": dropout})
    return ImageEncoder(backbone, **{"name": "image_encoder", **options})
