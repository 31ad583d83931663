"""An image classifier on the image tower, as in the paper's transfer experiments."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from align_keras import distribution, keras_internals
from align_keras.preprocessing import raw_inputs
from align_keras.preprocessing.preprocessor import AlignPreprocessor


@keras.saving.register_keras_serializable(package="align_keras")
class AlignImageClassifier(keras_internals.BuiltBeforeFit):
    """The image tower's features and a linear layer, as in the paper's transfer experiments.

    Train it with Keras's own ``fit`` on batches of images and classes. With
    ``classifier.image_encoder.trainable = False`` the tower is frozen and computes as in inference.
    With ``classifier.image_encoder.frozen_statistics = True`` it is trained with the moving
    statistics of batch norm.

    Args:
        image_encoder: an ``ImageEncoder``; it is used directly, not copied.
        class_names: strings, in the order of the labels.
        preprocessor: an ``AlignPreprocessor`` for raw images; None if there are none.
        **kwargs: passed to ``keras.Model``.

    Input: ``images``, ``(batch, height, width, 3)``, of any size: floats, or uint8 that the
    preprocessor scales.
    Output: logits, float32, ``(batch, classes)``; 0 before training.

    Example:
    ```python
    preprocessor = align_keras.AlignPreprocessor(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], 64, 72)
    tower = align_keras.build_image_encoder("efficientnet_nano")
    classifier = align_keras.AlignImageClassifier(tower, ["cat", "dog"], preprocessor)
    photos = np.zeros((3, 80, 80, 3), "uint8")
    logits = classifier.score(photos)  # (3, 2)
    names = [classifier.class_names[best] for best in logits.argmax(axis=1)]
    ```
    """

    def __init__(
        self,
        image_encoder: keras.Model,
        class_names: Sequence[str],
        preprocessor: AlignPreprocessor | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # === Layers ===
        self.image_encoder = image_encoder
        self.dtype_policy = (
            image_encoder.dtype_policy
        )  # otherwise images would be cast to the global policy
        self.head = keras.layers.Dense(
            len(class_names),
            # Training starts at chance, whatever the scale of the features.
            kernel_initializer="zeros",
            # A softmax of float16 logits would be imprecise.
            dtype="float32",
            name="head",
        )
        self.head.build((None, image_encoder.output_shape[-1]))
        self.built = True

        # === Config ===
        self.class_names = list(class_names)
        self.preprocessor = preprocessor
        self._traced: Callable[[tf.Tensor], tf.Tensor] | None = None

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The logits of a batch of images."""
        images = raw_inputs.scaled(images, self.preprocessor)
        if training and self.image_encoder.trainable:
            return self.head(self.image_encoder(images, training=True))
        # Given explicitly, since Keras would otherwise pass its own `training`.
        features = distribution.on_a_share(
            lambda share: self.image_encoder(share, training=False), images
        )
        return self.head(features)

    def score(self, images: Any, batch_size: int = 32, cropped: bool = False) -> np.ndarray:
        """The logits of raw images.

        Args:
            images: in any form that ``AlignDualEncoder.encode_images`` takes.
            batch_size: images at a time; a batched dataset keeps its own.
            cropped: as in ``AlignDualEncoder.encode_images``.

        Returns:
            A NumPy array, float32, ``(count, classes)``; their softmax gives probabilities.

        Raises:
            ItemError: if an item is not an image; states its index in the list.
            MissingItemError: if an image file does not exist.
        """
        if self._traced is None:
            self._traced = tf.function(self.call, reduce_retracing=True, autograph=False)
        batches = raw_inputs.image_batches(images, self.preprocessor, batch_size, cropped)
        traced = self._traced
        logits = [traced(batch).numpy() for batch in batches]
        return np.concatenate([np.zeros((0, len(self.class_names)), "float32"), *logits])

    def get_config(self) -> dict:
        """The constructor's arguments, serialised."""
        return {
            "image_encoder": keras.saving.serialize_keras_object(self.image_encoder),
            "class_names": self.class_names,
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Self:
        """Builds a classifier from ``get_config``'s dictionary."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("image_encoder", "preprocessor")
        }
        return cls(**{**config, **parts})
