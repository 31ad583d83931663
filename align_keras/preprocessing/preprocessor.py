"""Converts encoded images and captions to model inputs, with TensorFlow ops."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from align_keras import checksums, hub, keras_internals
from align_keras.errors import InputError
from align_keras.preprocessing import hugging_face, images
from align_keras.preprocessing.decoding import decoder
from align_keras.preprocessing.tokenizer import (
    WordPieceTokenizer,
    check_vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from align_keras.preprocessing.tracing import as_written

_VOCABULARY_FILE = "vocabulary.txt"


@keras.saving.register_keras_serializable(package="align_keras")
class AlignPreprocessor(keras_internals.WholePreprocessor):
    """Turns encoded images and captions into the inputs of an ``AlignBackbone``.

    Images are stretched to ``resize_size`` squared and cropped to ``image_size`` squared (paper,
    sec. 5: 346 and 289). The crop is random, with a random flip, in training, and central
    otherwise. Captions are split into word pieces and trimmed to ``sequence_length``, including
    [CLS] and [SEP] (sec. 5: 64). The paper does not state the scaling of pixels, the casing or the
    resizing method.

    Args:
        vocabulary: word pieces in the order of their ids, or the path of a BERT ``vocab.txt``; None
            if the assets of a preset provide it.
        image_size: side of the crop, in pixels.
        resize_size: side of the resized image, in pixels; at least ``image_size``.
        sequence_length: maximum number of word pieces per caption.
        antialias: if True, shrinking images are averaged as in Pillow, which the public checkpoint
            needs. If False, they are sampled, which is two to ten times faster.
        lowercase: whether captions are lower-cased.
        strip_accents: whether accents are stripped; None for the value of ``lowercase``.
        pixel_scale: factor for pixels of 0 .. 255: one number, or one per channel.
        pixel_offset: offset added after scaling. The default range is -1 .. 1.
        upright: whether to turn encoded images according to their EXIF orientation.
        **kwargs: arguments of ``keras.layers.Layer``.

    Call it with a dict of ``images``, ``captions`` or both. It returns a dict of ``images``,
    ``token_ids``, ``segment_ids`` and ``padding_mask``.

    Raises:
        ValueError: if ``resize_size`` is below ``image_size``, ``sequence_length`` below 3, or
            the vocabulary lacks one of BERT's special pieces (InputError).
        MissingInputError: if the vocabulary file does not exist.

    Example:
    ```python
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat"]
    preprocessor = align_keras.AlignPreprocessor(vocabulary, sequence_length=6)
    preprocessor.tokenize(["a cat"])["token_ids"]  # [[2, 4, 5, 3, 0, 0]]
    pixels = np.zeros((1, 480, 640, 3), "uint8")
    preprocessor({"images": pixels, "captions": ["a cat"]})["images"].shape  # (1, 289, 289, 3)
    ```
    """

    # In keras-hub's base class, a property of an image converter.
    image_size: int = 0

    def __init__(
        self,
        vocabulary: Sequence[str] | str | os.PathLike | None = None,
        image_size: int = 289,
        resize_size: int = 346,
        sequence_length: int = 64,
        antialias: bool = False,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        pixel_scale: float | Sequence[float] = 1 / 127.5,
        pixel_offset: float | Sequence[float] = -1.0,
        upright: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if resize_size < image_size:
            raise ValueError(
                f"resize_size ({resize_size}) must be at least image_size ({image_size})"
            )
        if sequence_length < 3:
            raise ValueError(f"sequence_length must be at least 3, not {sequence_length}")
        self.image_size = image_size
        self.resize_size = resize_size
        self.sequence_length = sequence_length
        self.antialias = antialias
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.pixel_scale = pixel_scale
        self.pixel_offset = pixel_offset
        self.upright = upright
        self._word_pieces: WordPieceTokenizer | None = None
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def set_vocabulary(self, vocabulary: Sequence[str] | str | os.PathLike) -> None:
        """Sets the word pieces: a list in the order of their ids, or the path of a file."""
        if isinstance(vocabulary, str | os.PathLike):
            vocabulary = read_vocabulary(vocabulary)
        else:
            check_vocabulary(vocabulary)
        self._word_pieces = WordPieceTokenizer(vocabulary, self.lowercase, self.strip_accents)

    @property
    def vocabulary(self) -> list[str]:
        """The word pieces in the order of their ids; InputError if none are set."""
        return self._word_piece_tokenizer.vocabulary

    @property
    def _word_piece_tokenizer(self) -> WordPieceTokenizer:
        if self._word_pieces is None:
            raise InputError("the preprocessor has no vocabulary", remedy="call set_vocabulary")
        return self._word_pieces

    @as_written
    def tokenize(self, captions: Any, pad_to_longest: bool = False) -> dict[str, tf.Tensor]:
        """Splits a batch of captions into word pieces, many times faster than one by one.

        Args:
            captions: strings, ``(batch,)``.
            pad_to_longest: whether rows are only as long as the longest caption of the batch. This
                saves work in the text tower and gives the same embeddings, but the shape varies.

        Returns:
            A dict of ``token_ids``, ``segment_ids`` (zeros) and ``padding_mask``, int32,
            ``(batch, sequence_length)``.
        """
        captions = tf.convert_to_tensor(captions, tf.string)
        return self._word_piece_tokenizer.rows(captions, self.sequence_length, pad_to_longest)

    @as_written
    def decode_centre_crop(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes one image and crops its centre, as in evaluation.

        Args:
            encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP, a scalar string.

        Returns:
            uint8, ``(image_size, image_size, 3)``, for ``scale``.

        Raises:
            tf.errors.InvalidArgumentError: if the image does not decode, as in ``decoder.decode``.
        """
        return self.centre_crop(decoder.decode(encoded, self.upright))

    @as_written
    def centre_crop(self, image: Any) -> tf.Tensor:
        """Resizes uint8 pixels ``(height, width, 3)`` and crops the centre; returns uint8."""
        image = images.resize(image, self.resize_size, self.antialias)
        return images.centre_crop(image, self.image_size)

    @as_written
    def decode_random_crop(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Decodes one image, crops it at random and flips it half of the time, as in training.

        Args:
            encoded: the bytes of an image, a scalar string, as for ``decode_centre_crop``.
            seed: two integers, which alone determine the crop and the flip.
        """
        draws = tf.random.stateless_uniform([3], seed)
        span = tf.cast(self.resize_size - self.image_size + 1, tf.float32)
        image = images.decode_resized_crop(
            encoded,
            tf.cast(draws[:2] * span, tf.int32),
            self.image_size,
            self.resize_size,
            self.antialias,
            self.upright,
        )
        return images.flip(image, draws[2] < 0.5)

    @as_written
    def decode_random_area(
        self, encoded: tf.Tensor, seed: tf.Tensor, min_area: float = 0.08
    ) -> tf.Tensor:
        """Decodes one image, crops a random window and flips it half of the time.

        This is the usual crop for image classifiers, ``images.decode_random_area``. Objects appear
        larger in it than with ``decode_centre_crop``.

        Args:
            encoded: the bytes of an image, a scalar string, as for ``decode_centre_crop``.
            seed: two integers, which alone determine the window and the flip.
            min_area: minimum fraction of the image's area that the window covers.
        """
        image = images.decode_random_area(
            encoded, seed, self.image_size, min_area, self.antialias, self.upright
        )
        # The seed is reversed, since the unchanged seed has determined the window.
        draw = tf.random.stateless_uniform([], tf.reverse(seed, [0]))
        return images.flip(image, draw < 0.5)

    def scale(self, pixels: Any) -> tf.Tensor:
        """Scales crops to inputs of the image tower, on the device; floats are already scaled.

        Pixels, ``(..., 3)``, are uint8 as from ``centre_crop``, and become float32.
        """
        pixels = tf.convert_to_tensor(pixels)
        if pixels.dtype.is_floating:
            return pixels
        pixels = tf.cast(pixels, tf.float32)
        return pixels * tf.constant(self.pixel_scale) + tf.constant(self.pixel_offset)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Converts a dict of images, captions or both to a dict of model inputs.

        ``images``: ``images`` are uint8 pixels ``(batch, height, width, 3)``, floats of that shape
        that are already scaled, or encoded images, strings ``(batch,)``. ``captions`` are strings,
        ``(batch,)``. Other fields are passed through.
        """
        outputs = {name: inputs[name] for name in inputs if name != "captions"}
        if "images" in inputs:
            outputs["images"] = self._batch_of_images(tf.convert_to_tensor(inputs["images"]))
        if "captions" in inputs:
            outputs.update(self.tokenize(inputs["captions"]))
        return outputs

    def _batch_of_images(self, batch):
        if batch.dtype.is_floating:
            return batch
        each = self.decode_centre_crop if batch.dtype == tf.string else self.centre_crop
        return self.scale(tf.map_fn(each, batch, fn_output_signature=tf.uint8))

    def get_config(self) -> dict:
        """The constructor's arguments, serialised, without the vocabulary, which is an asset."""
        config = super().get_config()
        config.pop("config_file", None)
        names = [
            *("image_size", "resize_size", "sequence_length", "antialias", "lowercase"),
            *("strip_accents", "pixel_scale", "pixel_offset", "upright"),
        ]
        return {**config, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_preset(cls, preset: str | os.PathLike, **options) -> Self:
        """Loads the preprocessor of a preset, or of a checkpoint in Hugging Face's layout.

        Args:
            preset: a folder, ``"gs://..."``, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
            **options: arguments of the constructor that replace those of the preset, such as
                ``image_size=256, resize_size=306``.

        Returns:
            An ``AlignPreprocessor``.

        Raises:
            InputError: if it is not a preset of this class, or the hub cannot be reached.
            MissingInputError: if the folder or one of its files is missing.
        """
        with hub.one_line(preset) as found:
            hub.check_files(found, hub.WITHOUT_WEIGHTS)
            config = hub.read_config(found)
            if config and config.get("model_type") == hugging_face.MODEL_TYPE:
                return cls(**{**hugging_face.arguments(found, config), **options})
            return hub.keras_loader(found, config).load_preprocessor(cls, **options)

    def save_to_preset(self, preset_dir: str | os.PathLike) -> None:
        """Writes ``preprocessor.json`` and the vocabulary into a folder, with ``checksums``."""
        with checksums.writing_into(preset_dir) as folder:
            super().save_to_preset(str(folder))
            directory = os.path.join(folder, hub.TOKENIZER_FOLDER)
            os.makedirs(directory, exist_ok=True)
            self.save_assets(directory)

    def load_preset_assets(self, preset: str | os.PathLike) -> None:
        """Reads the vocabulary of a preset; a hook of keras-hub."""
        self.set_vocabulary(hub.file_of(preset, f"{hub.TOKENIZER_FOLDER}/{_VOCABULARY_FILE}"))

    def save_assets(self, directory: str) -> None:
        """Writes the vocabulary into a ``.keras`` file; a hook of Keras."""
        write_vocabulary(self.vocabulary, os.path.join(directory, _VOCABULARY_FILE))

    def load_assets(self, directory: str) -> None:
        """Reads the vocabulary from a ``.keras`` file; a hook of Keras."""
        self.set_vocabulary(os.path.join(directory, _VOCABULARY_FILE))
