"""Embeds the evaluation data, each image and caption once, and caches class weights on disk."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras import paths, progress
from align_keras.data.examples import Example, ExampleSet
from align_keras.errors import InputError, Place
from align_keras.evaluation import zero_shot
from align_keras.evaluation.fingerprint import fingerprint
from align_keras.files import write_whole
from align_keras.paths import AnyPath
from align_keras.preprocessing.decoding.faults import FORMATS, fault_of
from align_keras.preprocessing.double_buffer import prepared_batches
from align_keras.preprocessing.preprocessor import AlignPreprocessor

#: A function that embeds crops, with the arguments of ``model.encode_images``.
Encode = Callable[..., np.ndarray]
_DIGEST = hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Embedded images and their captions."""

    images: np.ndarray
    """``(images, dim)``."""
    texts: np.ndarray
    """``(texts, dim)``."""
    image_of_text: np.ndarray
    """The index of each caption's image, ``(texts,)``."""
    captions: list[str]
    """``(texts,)``."""


def embed_pairs(model: Any, examples: Iterable[Example], batch_size: int = 64) -> Pairs:
    """Embeds images and their captions. Examples with the same image id are one image.

    Raises:
        InputError: if an image does not decode or has no caption, or a caption is not text.
    """
    rows: dict[str, int] = {}
    places: list[Place] = []
    captions: list[str] = []
    rows_of_texts: list[int] = []

    def new_images() -> Iterator[Example]:
        for example in watched(examples):
            is_new = example.image_id not in rows
            row = rows.setdefault(example.image_id, len(rows))
            queries = example.queries
            rows_of_texts.extend([row] * len(queries))
            captions.extend(queries)
            if is_new:
                places.append(example.place)
                yield example

    images = embed_images(model.encode_images, new_images(), model.preprocessor, batch_size)
    missing = sorted(set(range(len(rows))) - set(rows_of_texts))
    if missing:
        raise InputError(
            f"no caption; {len(missing):,} of {len(rows):,} images have none",
            places[missing[0]],
            "retrieval needs a caption for every image",
        )
    return Pairs(images, embed_texts(model, captions), np.array(rows_of_texts, int), captions)


def embed_images(
    encode: Encode,
    examples: Iterable[Example],
    preprocessor: AlignPreprocessor,
    batch_size: int = 64,
) -> np.ndarray:
    """Embeds the images of examples.

    Args:
        encode: embeds crops, uint8, ``(batch, size, size, 3)``; it is called with ``batch_size``
            and ``cropped=True``.
        examples: examples; they are iterated over once.
        preprocessor: crops the images.
        batch_size: images at a time.

    Returns:
        float32, ``(images, dim)``.

    Raises:
        InputError: if an image cannot be read or decoded, or there are no images.
    """
    batches = prepared_batches(
        examples, lambda example: decode_crop(example, preprocessor), batch_size
    )
    parts = [
        encode(np.stack([crop for _, crop in batch]), batch_size=batch_size, cropped=True)
        for batch in batches
    ]
    if not parts:
        raise InputError("there are no images in the data")
    return np.concatenate(parts)


def watched(examples: Iterable[Example]) -> Iterable[Example]:
    """Shows progress while examples are embedded."""
    total = None
    if isinstance(examples, Sized):
        total = len(examples)
    elif progress.is_shown() and isinstance(examples, ExampleSet):
        total = examples.count
    return progress.watch(examples, "embedding images", "image", total)


def decode_crop(example: Example, preprocessor: AlignPreprocessor) -> np.ndarray:
    """An example's image, cropped: uint8, ``(size, size, 3)``; InputError if it cannot be read."""
    return decode_bytes(example.read_image(), example.place, preprocessor)


def decode_bytes(encoded: bytes, place: Place, preprocessor: AlignPreprocessor) -> np.ndarray:
    """An encoded image, cropped: uint8, ``(size, size, 3)``; InputError if decoding fails."""
    try:
        return preprocessor.decode_centre_crop(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise InputError(fault_of(error), place, f"give {FORMATS}") from None


def embed_texts(model: Any, captions: Sequence[str], batch_size: int = 256) -> np.ndarray:
    """Embeds captions. Equal captions are embedded once, so that they tie exactly.

    Returns:
        float32, ``(captions, dim)``.
    """
    unique = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    embeddings = model.encode_texts(list(unique), batch_size)
    return embeddings[[unique[caption] for caption in captions]]


def class_weights(
    model: Any,
    class_names: Sequence[str],
    prompts: Sequence[str],
    cache: str | AnyPath = "",
) -> np.ndarray:
    """Embeds classes as the normalised means of their prompts, or reads them from a cache.

    Args:
        model: an ``AlignDualEncoder``.
        class_names: the classes.
        prompts: strings with ``{}`` for the name.
        cache: a folder for cached results; empty for no cache. A file is identified by the model's
            fingerprint, the filled prompts and their word pieces. Damaged files are computed again.

    Returns:
        float32, unit norm, ``(classes, dim)``.

    Raises:
        InputError: if a prompt has no ``{}``.
    """
    filled = zero_shot.fill_prompts(class_names, prompts)
    if not cache:
        return _embed_classes(model, filled, len(class_names))
    path = paths.path_of(cache) / f"{_cache_key(model, filled, len(class_names))}.npy"
    found = _read_classes(path, (len(class_names), model.backbone.projection_dim))
    if found is not None:
        return found
    classes = _embed_classes(model, filled, len(class_names))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: _write_classes(partial, classes))
    return classes


def _cache_key(model: Any, filled: list[str], num_classes: int) -> str:
    digest = hashlib.sha256(json.dumps([fingerprint(model), num_classes, filled]).encode())
    # With the same vocabulary, another version of the tokenizer may give other word pieces.
    for name, values in sorted(model.preprocessor.tokenize(filled).items()):
        digest.update(name.encode() + np.asarray(values).tobytes())
    return digest.hexdigest()[:32]


def _read_classes(path: AnyPath, shape: tuple[int, int]) -> np.ndarray | None:
    """The cached result of an earlier evaluation; None if there is no intact one."""
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            return None
        found = np.load(io.BytesIO(data))
    except (OSError, ValueError, EOFError):
        return None
    usable = found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all()
    return found if usable else None


def _write_classes(path: Path, classes: np.ndarray) -> None:
    """Writes a NumPy file followed by its digest, which ``np.load`` ignores."""
    file = io.BytesIO()
    np.save(file, classes)
    data = file.getvalue()
    path.write_bytes(data + hashlib.sha256(data).digest())


def _embed_classes(model: Any, filled: list[str], num_classes: int) -> np.ndarray:
    return zero_shot.class_embeddings(embed_texts(model, filled), num_classes)
