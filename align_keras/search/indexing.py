"""Embeds the images of a source into an index."""

import concurrent.futures
import hashlib
import io
import itertools
import json
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from align_keras.data.examples.image_files import UNREADABLE
from align_keras.preprocessing import images
from align_keras.preprocessing.raw_datasets import image_fault
from align_keras.search import inverted_lists
from align_keras.search.image_index import Header
from align_keras.search.index_writer import IndexWriter

# Seconds between two commits: what a run that is killed loses.
_COMMIT_SECONDS = 5.0
_THUMBNAIL_QUALITY = 85
# A caption of an index is there to be shown.
_MAX_CAPTION = 500


def build_index(
    model,
    source,
    directory,
    *,
    model_name="",
    images_name="",
    batch_size=64,
    precision="float32",
    thumbnail_size=192,
    exact_below=100_000,
    num_lists=0,
    restart=False,
    progress=None,
):
    """Embeds every image that can be read; goes on where an earlier run was cut off.

    A finished index is divided anew where ``exact_below`` or ``num_lists`` say so.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        source: an ``ExampleSet``, as of ``examples.open_images``.
        directory: of the index.
        model_name: where the model is, for who searches.
        images_name: where the images are, likewise.
        batch_size: images at a time.
        precision: ``float32`` or ``float16``, of the embeddings on disk.
        thumbnail_size: longer side of the pictures that are kept, pixels; 0 for none.
        exact_below: from so many images on a search looks into a part of them.
        num_lists: how many parts; 0: the root of the number of images.
        restart: whether to throw away an index that is there.
        progress: called with how many images are done, and how many of them are unreadable.

    Returns:
        The ``Header`` of the finished index, and how many images this run embedded.

    Raises:
        ValueError: if the index is one of another model, other images or other settings, or no
            image is readable.
    """
    if source.count >= exact_below:
        # Hours before it is needed.
        inverted_lists.require_faiss()
    header = Header(
        model=str(model_name),
        fingerprint=fingerprint(model),
        images=str(images_name),
        images_fingerprint=source.fingerprint,
        precision=precision,
        width=model.backbone.projection_dim,
        count=0,
        unreadable=0,
        thumbnail_size=thumbnail_size,
    )
    with IndexWriter(directory, header, restart) as writer:
        done = writer.rows
        if not writer.is_finished:
            left = itertools.islice(source.images(), writer.consumed, None)
            _embed(model, left, writer, batch_size, progress or (lambda *_: None))
        lists = 0
        if writer.rows >= exact_below:
            lists = min(num_lists or round(writer.rows**0.5), writer.rows)
        if writer.is_finished and writer.header.lists != lists:
            writer.reopen()
        if not writer.is_finished:
            writer.finish(lists)
        return writer.header, writer.rows - done


def fingerprint(model):
    """Tells a model by its weights, vocabulary and preprocessing: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    config = {
        name: value
        for name, value in model.preprocessor.get_config().items()
        if name not in ("name", "trainable", "dtype")
    }
    digest.update(json.dumps(config, sort_keys=True).encode())
    digest.update(json.dumps(list(model.preprocessor.vocabulary)).encode())
    for weight in model.backbone.weights:
        # The states of dropout's generators are among them.
        if "seed_generator" not in weight.path:
            digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _embed(model, source_images, writer, batch_size, progress):
    """Embeds what is left of the images, with a commit every few seconds."""
    size = writer.header.thumbnail_size
    waiting, begun = [], time.monotonic()
    for batch in _prepared(source_images, model.preprocessor, batch_size, size):
        good = [prepared for prepared in batch if isinstance(prepared[1], tuple)]
        embeddings = np.zeros((0, writer.header.width), np.float32)
        if good:
            pixels = np.stack([pixels for _, (pixels, _) in good])
            embeddings = model.encode_images(pixels, batch_size)
        if not np.isfinite(embeddings).all():
            raise ValueError("--model: embeddings that are not finite; the model has diverged")
        waiting.append((embeddings, good, [item for item in batch if isinstance(item[1], str)]))
        if time.monotonic() - begun >= _COMMIT_SECONDS:
            _commit(writer, waiting)
            progress(writer.consumed, writer.unreadable)
            waiting, begun = [], time.monotonic()
    if waiting:
        _commit(writer, waiting)
    progress(writer.consumed, writer.unreadable)


def _commit(writer, parts):
    embeddings, good, bad = zip(*parts, strict=True)
    good, bad = list(itertools.chain(*good)), list(itertools.chain(*bad))
    writer.commit(
        np.concatenate(embeddings),
        [
            {"name": image.image_id, "caption": "".join(image.captions[:1])[:_MAX_CAPTION]}
            for image, _ in good
        ],
        [thumbnail for _, (_, thumbnail) in good],
        [{"name": image.image_id, "reason": reason} for image, reason in bad],
    )


def _prepared(source_images, preprocessor, batch_size, thumbnail_size):
    """Yields batches of ``(image, (pixels, thumbnail) or the reason why there are none)``."""
    source_images = iter(source_images)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = None
        while batch := list(itertools.islice(source_images, batch_size)):
            # The next batch is prepared while this one is embedded.
            tasks = [
                (image, pool.submit(_prepare, image, preprocessor, thumbnail_size))
                for image in batch
            ]
            if waiting:
                yield [(image, task.result()) for image, task in waiting]
            waiting = tasks
        if waiting:
            yield [(image, task.result()) for image, task in waiting]


def _prepare(image, preprocessor, thumbnail_size):
    """Pixels for the model and a thumbnail, or in a few words why there are none."""
    try:
        encoded = image.load()
        if not encoded:
            return "empty"
        pixels = images.decode(encoded)
        cropped = preprocessor.crop_image(pixels)
    except tf.errors.InvalidArgumentError as error:
        return image_fault(error)
    except FileNotFoundError:
        return "no such file"
    except (ValueError, KeyError, *UNREADABLE) as error:
        # Of an archive that is cut off there is no word but its kind.
        return getattr(error, "strerror", None) or (str(error) or repr(error)).splitlines()[0]
    thumbnail = make_thumbnail(pixels.numpy(), thumbnail_size) if thumbnail_size else b""
    return cropped.numpy(), thumbnail


def make_thumbnail(pixels, size):
    """A JPEG of uint8 pixels, its longer side at most ``size``, which holds nothing else."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size), reducing_gap=2.0)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_THUMBNAIL_QUALITY)
    return encoded.getvalue()
