"""Converts raw images and captions in various forms to batches of model inputs."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras.errors import InputError, MissingInputError, Place
from align_keras.preprocessing import pixel_ranges
from align_keras.preprocessing.decoding import pillow
from align_keras.preprocessing.decoding.faults import FORMATS, fault_of
from align_keras.preprocessing.double_buffer import prepared_batches
from align_keras.preprocessing.fields import PIXELS, TEXT_INPUTS
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.raw_datasets import (
    check_preprocessor,
    iterate,
    prepare,
)


class ItemError(InputError):
    """An image or caption of a list cannot be used.

    Args:
        index: index in the list; also an attribute.
        problem: what is wrong with it.
        place: the file, or the place in the list, such as ``Place(member="image 3")``.
        remedy: what the user can do.
    """

    def __init__(self, index: int, problem: str, place: Place, remedy: str = "") -> None:
        super().__init__(problem, place, remedy)
        self.index = index


class MissingItemError(ItemError, MissingInputError):
    """An image file does not exist."""


def image_batches(
    images: Any, preprocessor: AlignPreprocessor | None, batch_size: int, cropped: bool = False
) -> Iterator[tf.Tensor]:
    """Yields batches of crops or of model inputs from images; pass them to ``scaled``.

    Args:
        images: one of the following:

            * floats ``(count, size, size, 3)``, which are model inputs already;
            * uint8 ``(count, height, width, 3)``;
            * a list of paths, encoded images (bytes), PIL images or uint8 arrays ``(height, width,
              3)``, which may be mixed, or a single path or PIL image;
            * a ``tf.data.Dataset`` of arrays, paths or encoded images, of tuples that begin with
              one of these, or of dicts with a field ``images``; batched or not.
        preprocessor: an ``AlignPreprocessor``; may be None if all images are floats.
        batch_size: images per batch; a batched dataset keeps its own.
        cropped: whether uint8 images are already crops, ``(count, size, size, 3)``.

    Yields:
        Crops, uint8, ``(batch, size, size, 3)``, or the given floats as float32.

    Raises:
        ItemError: if an item is not an image; states its index in the list.
        MissingItemError: if an image file does not exist.
        InputError: if the input is not a collection of images.
    """
    if isinstance(images, tf.data.Dataset):
        dataset = prepare(images, preprocessor, batch_size, ("images",), keep_others=False)
        for batch in iterate(dataset, preprocessor):
            yield batch[PIXELS] if PIXELS in batch else batch["images"]
        return
    if isinstance(images, str | bytes | os.PathLike) or hasattr(images, "convert"):
        images = [images]
    if isinstance(images, dict) or not hasattr(images, "__len__"):
        raise InputError(f"not images, but {_describe(images)}")
    rank = len(images.shape) if hasattr(images, "shape") else None
    if rank == 4 and tf.as_dtype(images.dtype).is_floating:
        for start in range(0, len(images), batch_size):
            batch = tf.cast(images[start : start + batch_size], tf.float32)
            pixel_ranges.check(batch, preprocessor)
            yield batch
        return
    preprocessor = check_preprocessor(preprocessor)
    if cropped:
        for start in range(0, len(images), batch_size):
            yield tf.convert_to_tensor(images[start : start + batch_size], tf.uint8)
        return
    if rank == 3:
        raise InputError(
            "images: a single array", remedy="give a batch of them, as in images[None]"
        )
    batches = prepared_batches(
        enumerate(images), lambda item: _prepare_image(item[1], item[0], preprocessor), batch_size
    )
    for batch in batches:
        yield tf.stack([image for _, image in batch])


def _prepare_image(image, index, preprocessor):
    """Converts one image of a list to a crop."""
    place = Place(member=f"image {index}")
    if isinstance(image, str | os.PathLike):
        place = Place(os.fspath(image))
        if not tf.io.gfile.exists(place.file) or tf.io.gfile.isdir(place.file):
            raise MissingItemError(index, "no such image file", place)
        image = tf.io.read_file(place.file)
    try:
        if isinstance(image, bytes) or getattr(image, "dtype", None) == tf.string:
            return preprocessor.decode_centre_crop(image)
        if hasattr(image, "convert"):  # a PIL image
            if image.mode[0] in "IF":
                problem = f"more than 8 bits per pixel (mode {image.mode})"
                raise ItemError(index, problem, place)
            image = pillow.pixels_of(image, preprocessor.upright)
        pixels = np.asarray(image)
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
            raise ItemError(
                index,
                "not a path, encoded image or uint8 array (height, width, 3), but "
                f"{pixels.dtype} {pixels.shape}",
                place,
            )
        return preprocessor.centre_crop(pixels)
    except tf.errors.InvalidArgumentError as error:
        raise ItemError(index, fault_of(error), place, f"give {FORMATS}") from error


def scaled(images: tf.Tensor, preprocessor: AlignPreprocessor | None) -> tf.Tensor:
    """Converts the results of ``image_batches`` to model inputs."""
    return images if images.dtype.is_floating else check_preprocessor(preprocessor).scale(images)


def scaled_inputs(
    inputs: Mapping[str, tf.Tensor], preprocessor: AlignPreprocessor | None
) -> dict[str, tf.Tensor]:
    """The inputs of a backbone, given the fields of a batch from ``fields.inputs_of``."""
    inputs = dict(inputs)
    if PIXELS in inputs:
        inputs["images"] = scaled(inputs.pop(PIXELS), preprocessor)
    return inputs


def caption_batches(
    captions: Any, preprocessor: AlignPreprocessor | None, batch_size: int
) -> Iterator[dict[str, tf.Tensor]]:
    """Yields batches of model inputs from captions.

    Args:
        captions: a list of strings or a single string; a dict of ``token_ids``, ``segment_ids`` and
            ``padding_mask``, ``(count, sequence)``; or a ``tf.data.Dataset`` of strings, or of
            dicts with a field ``captions`` or with those three fields; batched or not.
        preprocessor: an ``AlignPreprocessor``; may be None if all captions are tokenised.
        batch_size: captions per batch; a batched dataset keeps its own.

    Yields:
        Dicts of int32 arrays, ``(batch, sequence)``.

    Raises:
        ItemError: if an item is not a string; states its index in the list.
        InputError: if the input is not a collection of captions.
    """
    if isinstance(captions, tf.data.Dataset):
        fields = ("captions", *TEXT_INPUTS)
        dataset = prepare(captions, preprocessor, batch_size, fields, keep_others=False)
        yield from iterate(dataset, preprocessor)
        return
    if isinstance(captions, dict):
        if missing := [name for name in TEXT_INPUTS if name not in captions]:
            raise InputError(f"captions: no {', '.join(missing)}, only {', '.join(captions)}")
        for start in range(0, len(captions["token_ids"]), batch_size):
            yield {name: captions[name][start : start + batch_size] for name in TEXT_INPUTS}
        return
    preprocessor = check_preprocessor(preprocessor)
    captions = caption_list(captions)
    for start in range(0, len(captions), batch_size):
        yield preprocessor.tokenize(captions[start : start + batch_size], pad_to_longest=True)


def caption_list(captions: Any) -> list[str | bytes]:
    """A list of strings, given a string, a list or an array.

    Raises:
        ItemError: if an item is not a string; states its index in the list.
        InputError: if the input is none of these.
    """
    if isinstance(captions, str | bytes):
        return [captions]
    captions = captions.numpy() if tf.is_tensor(captions) else captions
    if not hasattr(captions, "__len__"):
        raise InputError(f"not captions, but {_describe(captions)}")
    captions = list(captions)
    for index, caption in enumerate(captions):
        if not isinstance(caption, str | bytes):
            problem = f"not a string, but {_describe(caption)}"
            raise ItemError(index, problem, Place(member=f"caption {index}"))
    return captions


def _describe(value):
    return type(value).__name__ + (f" {value}" if isinstance(value, int | float) else "")


def are_model_inputs(fields: Any) -> bool:
    """Whether a dict of arrays or specs holds model inputs: pairs, or uint8 crops alone."""
    if not isinstance(fields, dict):
        return False
    if PIXELS in fields:
        return True
    if not set(TEXT_INPUTS) <= fields.keys():
        return False
    return "images" in fields and tf.as_dtype(fields["images"].dtype).is_floating


def split_pairs(pairs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Splits a dict of pairs into images and texts: captions or word pieces.

    Raises:
        InputError: if one is missing or their numbers differ.
    """
    is_tokenized = set(TEXT_INPUTS) <= pairs.keys()
    for name in ("images", *([] if is_tokenized else ["captions"])):
        if name not in pairs:
            raise InputError(
                f"no {name} in the inputs",
                remedy="to embed only images or only captions, use encode_images or encode_texts",
            )
    captions = {name: pairs[name] for name in TEXT_INPUTS} if is_tokenized else pairs["captions"]
    counts = [_count(pairs["images"]), _count(pairs["token_ids"] if is_tokenized else captions)]
    if counts[0] != counts[1]:
        raise InputError(
            f"{counts[0]} images and {counts[1]} captions do not form pairs",
            remedy="use encode_images and encode_texts",
        )
    return pairs["images"], captions


def _count(values):
    single = isinstance(values, str | bytes | os.PathLike) or hasattr(values, "convert")
    return 1 if single else len(values)
