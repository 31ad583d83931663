"""The signatures of an exported model: functions of raw batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.export.decoding import decode_each

#: Longer captions are cut. This is far more than a text tower can use, and bounds the time and
#: memory that a string can take.
MAX_CAPTION_BYTES = 1 << 14


class Signatures:
    """An ``AlignDualEncoder`` with its preprocessing: embeds captions and image files.

    Each method takes and returns batches of any size. It consists of TensorFlow and TF Text ops,
    and its results equal those of the model in memory.

    Args:
        model: an ``AlignDualEncoder`` with a preprocessor.
        class_names: class names for ``classify``; None for no such signature.
        class_embeddings: class embeddings of unit norm, ``(classes, projection_dim)``.
    """

    def __init__(
        self,
        model: Any,
        class_names: Sequence[str] | None = None,
        class_embeddings: np.ndarray | None = None,
    ) -> None:
        self.backbone = model.backbone
        self.preprocessor = model.preprocessor
        self.temperature = float(model.temperature.numpy())
        self.class_names = class_names
        self.class_embeddings = class_embeddings

    def specs(self) -> dict[str, tf.TensorSpec]:
        """The input of each signature, by name; the first signature is the default."""
        encoded = tf.TensorSpec([None], tf.string, "images")
        specs = {
            "encode_text": tf.TensorSpec([None], tf.string, "captions"),
            "encode_image": encoded,
            "encode_pixels": tf.TensorSpec([None, None, None, 3], tf.uint8, "images"),
        }
        return specs | ({"classify": encoded} if self.class_names else {})

    def encode_text(self, captions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds captions.

        Args:
            captions: UTF-8 strings, ``(batch,)``. Invalid UTF-8 is dropped; captions are cut at
                ``MAX_CAPTION_BYTES``.

        Returns:
            A dict of ``text_embeddings``, float32, ``(batch, projection_dim)``, unit norm.
        """
        captions = tf.strings.substr(captions, 0, MAX_CAPTION_BYTES)
        # U+FFFD is dropped later, and with it invalid bytes and a character cut in two.
        captions = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8", errors="replace")
        tokens = self.preprocessor.tokenize(captions, pad_to_longest=True)
        return {"text_embeddings": self.backbone.encode_texts(tokens)}

    def encode_image(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds encoded images.

        Args:
            images: the bytes of JPEG, PNG, GIF, BMP or WebP files, strings, ``(batch,)``.

        Returns:
            A dict of ``image_embeddings``, float32, ``(batch, projection_dim)``, unit norm, and
            ``valid``, bool, ``(batch,)``: whether the image decoded. The embedding of an image that
            did not decode is zeros; the other images are not affected.
        """
        crops, valid = decode_each(images, self.preprocessor)
        embeddings = self.backbone.encode_images(self.preprocessor.scale(crops))
        return {"image_embeddings": _zero_unless(valid, embeddings), "valid": valid}

    def encode_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Embeds pixels.

        Args:
            images: uint8, ``(batch, height, width, 3)``, RGB, 0 .. 255, of any size. They are
                resized, cropped and scaled like decoded files.

        Returns:
            A dict of ``image_embeddings``, float32, ``(batch, projection_dim)``, unit norm.
        """
        pixels = self.preprocessor({"images": images})["images"]
        return {"image_embeddings": self.backbone.encode_images(pixels)}

    def classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decides which of the class names an image shows: zero-shot, as in evaluation.

        Args:
            images: as in ``encode_image``.

        Returns:
            A dict of ``probabilities``, float32, ``(batch, classes)``, in the order of the class
            names: the softmax of similarity / temperature; ``best_class``, strings, ``(batch,)``;
            and ``valid``, bool, ``(batch,)``. For an image that did not decode, the probabilities
            are zeros and the best class is the empty string.
        """
        encoded = self.encode_image(images)
        valid = encoded["valid"]
        similarity = tf.matmul(encoded["image_embeddings"], self.class_embeddings, transpose_b=True)
        probabilities = tf.nn.softmax(similarity / self.temperature)
        best = tf.gather(tf.constant(self.class_names), tf.argmax(probabilities, axis=-1))
        return {
            "probabilities": _zero_unless(valid, probabilities),
            "best_class": tf.where(valid, best, ""),
            "valid": valid,
        }


def _zero_unless(valid: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.where(valid[:, None], rows, tf.zeros_like(rows))
