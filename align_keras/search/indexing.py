"""Embeds the images of a source into an index."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from align_keras import progress, signals
from align_keras.data.examples import Example, ExampleSet
from align_keras.data.examples.image_files import UNREADABLE
from align_keras.errors import InputError, concerning
from align_keras.evaluation.fingerprint import fingerprint, is_fingerprint_of
from align_keras.preprocessing.decoding import decoder
from align_keras.preprocessing.decoding.faults import ImageFaultError
from align_keras.preprocessing.double_buffer import prepared_batches
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.thumbnails import make_thumbnail
from align_keras.search import inverted_lists
from align_keras.search.image_index import Header
from align_keras.search.index_writer import IndexWriter

# Seconds between two commits, and thus the most work that a killed run loses.
_COMMIT_SECONDS = 5.0
# Captions in an index are only displayed.
_MAX_CAPTION = 500


def build_index(
    model: Any,
    source: ExampleSet,
    directory: str | Path,
    *,
    model_name: str = "",
    images_name: str = "",
    batch_size: int = 64,
    precision: str = "float32",
    thumbnail_size: int = 192,
    exact_below: int = 100_000,
    num_lists: int = 0,
    restart: bool = False,
    committed: Callable[[int, int], Any] | None = None,
) -> tuple[Header, int]:
    """Embeds every readable image; continues after the last commit of an earlier run.

    A finished index is divided into lists again if ``exact_below`` or ``num_lists`` require it.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        source: the images.
        directory: directory of the index.
        model_name: folder or address of the model; searches load it from there.
        images_name: the images as the user gave them, for the header.
        batch_size: images at a time.
        precision: type of the embeddings on disk, ``float32`` or ``float16``.
        thumbnail_size: longer side of the stored thumbnails, in pixels; 0 for no thumbnails.
        exact_below: indexes with fewer images are searched exactly, larger ones are divided into
            lists.
        num_lists: number of lists; 0 for the square root of the number of images.
        restart: whether to delete an existing index.
        committed: called after each commit with the number of processed images and the number of
            unreadable ones.

    Returns:
        The ``Header`` of the finished index, and the number of images that this run embedded.

    Raises:
        InputError: if the index has another model, other images or other settings, as in
            ``IndexWriter``; if no image is readable; or if lists are needed without faiss
            (``setting`` is then ``exact_below``).
    """
    if source.count >= exact_below:
        # Checked now, since faiss is needed only hours later.
        with concerning("exact_below"):
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
    is_same_model = lambda found: is_fingerprint_of(found, model)  # noqa: E731
    with (
        IndexWriter(directory, header, restart, is_same_model) as writer,
        signals.explaining(
            lambda: f"{writer.consumed:,} images are done; the same command continues there"
        ),
    ):
        done = writer.rows
        if not writer.is_finished:
            left = itertools.islice(source.images(), writer.consumed, None)
            total, done_before = source.count, writer.consumed
            with progress.bar("embedding images", total, "image", done=done_before) as bar:
                _embed(model, left, writer, batch_size, bar, committed or (lambda *_: None))
        lists = 0
        if writer.rows >= exact_below:
            lists = min(num_lists or round(writer.rows**0.5), writer.rows)
        if writer.is_finished and writer.header.lists != lists:
            writer.reopen()
        if not writer.is_finished:
            with progress.working("finishing the index"):
                writer.finish(lists)
        return writer.header, writer.rows - done


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """Pixels for the model and a thumbnail, or a short reason for the lack of them."""

    crop: np.ndarray | None = None
    thumbnail: bytes = b""
    fault: str = ""


@dataclasses.dataclass
class _Part:
    """Images to commit: embedded ones and unreadable ones."""

    embeddings: list[np.ndarray] = dataclasses.field(default_factory=list)
    labels: list[dict[str, str]] = dataclasses.field(default_factory=list)
    thumbnails: list[bytes] = dataclasses.field(default_factory=list)
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)


def _embed(
    model: Any,
    source_images: Iterable[Example],
    writer: IndexWriter,
    batch_size: int,
    bar: Any,
    committed: Callable[[int, int], Any],
) -> None:
    """Embeds the remaining images; commits every few seconds."""
    size, width = writer.header.thumbnail_size, writer.header.width
    part, begun = _Part(), time.monotonic()

    def commit() -> None:
        embeddings = np.concatenate([np.zeros((0, width), np.float32), *part.embeddings])
        writer.commit(embeddings, part.labels, part.thumbnails, part.unreadable)
        bar.done = writer.consumed
        bar.note = f"{writer.unreadable:,} unreadable" if writer.unreadable else ""
        committed(writer.consumed, writer.unreadable)

    batches = prepared_batches(
        source_images, lambda image: _prepare(image, model.preprocessor, size), batch_size
    )
    for batch in batches:
        crops = []
        for image, prepared in batch:
            if prepared.crop is None:
                part.unreadable.append({"name": image.image_id, "reason": prepared.fault})
                continue
            crops.append(prepared.crop)
            part.thumbnails.append(prepared.thumbnail)
            caption = "".join(image.captions[:1])[:_MAX_CAPTION]
            part.labels.append({"name": image.image_id, "caption": caption})
        if crops:
            part.embeddings.append(model.encode_images(np.stack(crops), batch_size, cropped=True))
            if not np.isfinite(part.embeddings[-1]).all():
                raise InputError(
                    "the embeddings are not finite; the model has diverged", setting="model"
                )
        if time.monotonic() - begun >= _COMMIT_SECONDS:
            commit()
            part, begun = _Part(), time.monotonic()
    commit()


def _prepare(image: Example, preprocessor: AlignPreprocessor, size: int) -> _Prepared:
    """A crop and a thumbnail of ``size`` pixels; no thumbnail if ``size`` is 0."""
    try:
        encoded = image.load()
        if not encoded:
            return _Prepared(fault="empty")
        pixels = decoder.decode_pixels(encoded, preprocessor.upright)
        crop = preprocessor.centre_crop(pixels)
    except ImageFaultError as error:
        return _Prepared(fault=str(error))
    except FileNotFoundError:
        return _Prepared(fault="no such file")
    except (ValueError, KeyError, *UNREADABLE) as error:
        # The error of a truncated archive may have no message, only a type.
        reason = getattr(error, "strerror", None) or str(error) or repr(error)
        return _Prepared(fault=reason.splitlines()[0])
    return _Prepared(crop.numpy(), make_thumbnail(pixels, size) if size else b"")
