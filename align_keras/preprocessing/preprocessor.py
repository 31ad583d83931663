"""Encoded images and captions to model inputs, in TensorFlow ops."""

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

    Images are stretched to ``resize_size`` squared and cropped to ``image_size`` squared: at
    random, with a random flip, in training; at the centre else (paper, sec. 5: 346 and 289).
    Captions are cut into word pieces and trimmed to ``sequence_length`` with [CLS] and [SEP]
    (sec. 5: 64). The paper states neither the scaling of pixels nor the casing nor the resize.

    Args:
        vocabulary: word pieces in the order of their ids, or the path of a BERT ``vocab.txt``;
            None if it comes with the assets of a preset.
        image_size: pixels.
        resize_size: pixels, at least ``image_size``.
        sequence_length: word pieces.
        antialias: whether images made smaller are averaged, as Pillow does, or sampled, which
            is two to ten times faster. The public checkpoint wants the former.
        lowercase: whether captions are lower-cased.
        strip_accents: whether accents are stripped; None for what ``lowercase`` says.
        pixel_scale: what pixels of 0 .. 255 are multiplied with: a number, or one a channel.
        pixel_offset: what is added then. The default range is -1 .. 1.
        upright: whether encoded images are turned as their EXIF orientation says, or used as their
            pixels are stored.
        **kwargs: of ``keras.layers.Layer``.

    Call with a dict of ``images`` and ``captions``, or one of them; gives a dict of ``images``,
    ``token_ids``, ``segment_ids`` and ``padding_mask``.

    Raises:
        ValueError: if ``resize_size`` is below ``image_size``, ``sequence_length`` below 3, or
            the vocabulary lacks one of BERT's special pieces (InputError).
        MissingInputError: if there is no such vocabulary file.

    Example:
    ```python
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat"]
    preprocessor = align_keras.AlignPreprocessor(vocabulary, sequence_length=6)
    preprocessor.tokenize(["a cat"])["token_ids"]  # [[2, 4, 5, 3, 0, 0]]
    pixels = np.zeros((1, 480, 640, 3), "uint8")
    preprocessor({"images": pixels, "captions": ["a cat"]})["images"].shape  # (1, 289, 289, 3)
    ```
    """

    # In keras-hub's base class a property of an image converter.
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
        """Cuts captions into word pieces, a batch at a time (many times faster than singly).

        Args:
            captions: strings, ``(batch,)``.
            pad_to_longest: whether rows are only as long as the batch's longest caption needs: less
                work for the text tower, and the same embeddings, but not of a fixed shape.

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
            tf.errors.InvalidArgumentError: if they are not decoded, as in ``decoder.decode``.
        """
        return self.centre_crop(decoder.decode(encoded, self.upright))

    @as_written
    def centre_crop(self, image: Any) -> tf.Tensor:
        """Resizes uint8 pixels ``(height, width, 3)`` and crops the centre: uint8 too."""
        image = images.resize(image, self.resize_size, self.antialias)
        return images.centre_crop(image, self.image_size)

    @as_written
    def decode_random_crop(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Decodes one image, crops at random and flips it every other time, as in training.

        Args:
            encoded: the bytes of an image, a scalar string, as for ``decode_centre_crop``.
            seed: two integers, which alone decide crop and flip.
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
        """Decodes one image, cuts a random window out and flips it every other time.

        The crop of image classifiers, ``images.decode_random_area``; it shows things larger than
        ``decode_centre_crop`` does.

        Args:
            encoded: the bytes of an image, a scalar string, as for ``decode_centre_crop``.
            seed: two integers, which alone decide window and flip.
            min_area: the least share of the image that the window covers.
        """
        image = images.decode_random_area(
            encoded, seed, self.image_size, min_area, self.antialias, self.upright
        )
        # A draw of its own: the seed as it is has given the window.
        draw = tf.random.stateless_uniform([], tf.reverse(seed, [0]))
        return images.flip(image, draw < 0.5)

    def scale(self, pixels: Any) -> tf.Tensor:
        """What the image tower takes of crops, on the device: floats are scaled already.

        Pixels are ``(..., 3)``, uint8 as returned by ``centre_crop``, and become float32.
        """
        pixels = tf.convert_to_tensor(pixels)
        if pixels.dtype.is_floating:
            return pixels
        pixels = tf.cast(pixels, tf.float32)
        return pixels * tf.constant(self.pixel_scale) + tf.constant(self.pixel_offset)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Images and captions, or one of them, to model inputs: a dict to a dict.

        ``images``: pixels ``(batch, height, width, 3)``, uint8, or floats that are scaled
        already; or encoded images, strings ``(batch,)``. ``captions``: strings, ``(batch,)``.
        Other fields pass.
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
        """The constructor's arguments, serialised; the vocabulary is an asset of its own."""
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
            preset: a folder, also ``"gs://..."``, ``"hf://USER/MODEL"`` or ``"kaggle://..."``.
            **options: of the constructor, in place of the preset's own, such as
                ``image_size=256, resize_size=306``.

        Returns:
            An ``AlignPreprocessor``.

        Raises:
            InputError: if it is not a preset of this class, or a hub cannot be reached.
            MissingInputError: if the folder, or a file in it, is missing.
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
        """Reads the vocabulary of a preset: keras-hub's hook."""
        self.set_vocabulary(hub.file_of(preset, f"{hub.TOKENIZER_FOLDER}/{_VOCABULARY_FILE}"))

    def save_assets(self, directory: str) -> None:
        """Writes the vocabulary into a ``.keras`` file: Keras's hook."""
        write_vocabulary(self.vocabulary, os.path.join(directory, _VOCABULARY_FILE))

    def load_assets(self, directory: str) -> None:
        """Reads the vocabulary from a ``.keras`` file: Keras's hook."""
        self.set_vocabulary(os.path.join(directory, _VOCABULARY_FILE))
