"""Embeds what is evaluated, each image and each caption once, and keeps class weights on disk."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from align_keras.evaluation import zero_shot
from align_keras.preprocessing import raw_inputs

# Encoded images in memory at a time, in batches.
_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Embedded images and their captions."""

    images: np.ndarray
    """``(images, dim)``."""
    texts: np.ndarray
    """``(texts, dim)``."""
    image_of_text: np.ndarray
    """The place of each caption's image, ``(texts,)``."""
    captions: list
    """Strings, ``(texts,)``."""


def embed_pairs(model, examples, batch_size=64):
    """Embeds an ``ExampleSet`` with captions.

    Returns:
        ``Pairs``.

    Raises:
        ValueError: if an image does not decode or has no caption.
    """
    rows, captions, image_of_text = {}, [], []

    def new_images():
        for example in examples:
            is_new = example.image_id not in rows
            row = rows.setdefault(example.image_id, len(rows))
            image_of_text.extend([row] * len(example.captions))
            captions.extend(example.captions)
            if is_new:
                yield example

    images = embed_images(model.encode_images, new_images(), batch_size)
    image_of_text = np.array(image_of_text, int)
    missing = sorted(set(range(len(rows))) - set(image_of_text.tolist()))
    if missing:
        raise ValueError(
            f"--data: image {list(rows)[missing[0]]} has no caption, as have {len(missing):,} of "
            f"{len(rows):,}; retrieval needs one of each"
        )
    return Pairs(images, embed_texts(model, captions), image_of_text, captions)


def embed_images(encode, examples, batch_size=64):
    """Embeds the images of examples.

    Args:
        encode: ``model.encode_images``, or another function of a list of encoded images and a
            batch size.
        examples: an iterable of ``Example``.
        batch_size: images at a time.

    Returns:
        float32, ``(images, dim)``.

    Raises:
        ValueError: if an image cannot be read or does not decode, or there is none.
    """
    parts, waiting = [], []

    def encode_waiting():
        try:
            parts.append(encode([image for _, image in waiting], batch_size))
        except ValueError as error:
            place = re.match(r"image (\d+)", str(error))
            if not place:
                raise
            where = waiting[int(place[1])][0]
            raise ValueError(f"--data: {where}{str(error)[place.end() :]}") from None
        waiting.clear()

    for example in examples:
        waiting.append((example.place, load_image(example)))
        if len(waiting) == _BATCHES * batch_size:
            encode_waiting()
    if waiting:
        encode_waiting()
    if not parts:
        raise ValueError("--data: there is no image in it")
    return np.concatenate(parts)


def load_image(example):
    """The encoded image of an example; ValueError, with its place, if it cannot be read."""
    try:
        return example.load()
    except Exception as error:  # zip, file systems and archives have errors of all kinds
        raise ValueError(f"--data: {example.place}: image cannot be read ({error!r})") from None


def embed_texts(model, captions, batch_size=256):
    """Embeds captions; equal ones once, so that they tie exactly.

    Returns:
        float32, ``(captions, dim)``.
    """
    unique = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
    embeddings = model.encode_texts(list(unique), batch_size)
    return embeddings[[unique[caption] for caption in captions]]


def feature_encoder(model):
    """As ``model.encode_images``, of the image tower's features before the projection.

    A function of a list of encoded images and a batch size; gives float32, ``(images, width)``.
    The paper's classifiers are trained on those.
    """
    tower = tf.function(model.backbone.image_encoder, reduce_retracing=True)

    def encode(images, batch_size):
        batches = raw_inputs.image_batches(images, model.preprocessor, batch_size)
        return np.concatenate([tower(batch).numpy() for batch in batches])

    return encode


def class_weights(model, class_names, prompts, cache=""):
    """Embeds classes, the mean of their prompts normalised, or finds them on disk.

    Args:
        model: an ``AlignDualEncoder``.
        class_names: strings.
        prompts: strings with ``{}`` for the name.
        cache: a folder for what was embedded before; empty for none. A file is found by the
            names, the prompts, the vocabulary and every weight of the text tower.

    Returns:
        float32, unit norm, ``(classes, dim)``.
    """
    filled = zero_shot.fill_prompts(class_names, prompts)
    path = Path(cache) / f"{_fingerprint(model, filled)}.npy" if cache else None
    if path and path.is_file():
        return np.load(path)
    classes = zero_shot.class_embeddings(embed_texts(model, filled), len(class_names))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, classes)
        partial.rename(path)
    return classes


def _fingerprint(model, filled):
    digest = hashlib.sha256(json.dumps(filled).encode())
    digest.update(json.dumps(list(model.preprocessor.vocabulary)).encode())
    config = {
        name: getattr(model.preprocessor, name)
        for name in ("sequence_length", "lowercase", "strip_accents")
    }
    digest.update(json.dumps(config).encode())
    for part in (model.backbone.text_encoder, model.backbone.text_projection):
        for weight in part.weights:
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:32]
