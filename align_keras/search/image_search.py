"""Searches an index with sentences, images or both, and ranks the classes of an image.

All input is limited and checked here, since the web page passes on input from strangers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from align_keras.errors import InputError, Place
from align_keras.evaluation import embedding, zero_shot
from align_keras.evaluation.composed_search import compose
from align_keras.evaluation.fingerprint import is_fingerprint_of
from align_keras.preprocessing.decoding.faults import MAX_PIXELS, ImageFaultError
from align_keras.preprocessing.thumbnails import make_thumbnail
from align_keras.search.image_index import ImageIndex
from align_keras.search.originals import MAX_SIZE, Originals
from align_keras.search.pixel_budget import PixelBudget, pixels_of
from align_keras.search.queries import Query, checked_texts, clean_text

T = TypeVar("T")

MAX_IMAGE_BYTES = 20 << 20
MAX_CLASSES = 1_000
MAX_RESULTS = 200
# Number of sentences embedded at a time.
_TEXTS = 32


@dataclasses.dataclass(frozen=True)
class Match:
    """A found image."""

    place: int
    score: float
    name: str
    caption: str
    thumbnail: bytes = b""
    """A JPEG; empty if the index has none or it was not requested."""


class ImageSearch:
    """A model and an index that was made with it.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        index: an ``ImageIndex``.
        originals: the files of the indexed images, to show them at full size; None if unavailable.

    Raises:
        InputError: if the index was made with another model.
    """

    def __init__(self, model: Any, index: ImageIndex, originals: Originals | None = None) -> None:
        header = index.header
        is_its_own = is_fingerprint_of(header.fingerprint, model)
        if not is_its_own or model.backbone.projection_dim != header.width:
            raise InputError(
                "the index was made with another model or other weights",
                remedy=f"give the model that made it ({header.model} as it was then), or build "
                "the index again",
            )
        self.model = model
        self.index = index
        self.originals = originals
        self._pixels = PixelBudget(MAX_PIXELS)

    def warm_up(self) -> None:
        """Traces both towers for all batch sizes, which takes seconds."""
        for texts in (["a"], ["a", "a b"]):
            self.embed_texts(texts)
        size = self.model.preprocessor.image_size
        self.model.encode_images(np.zeros((1, size, size, 3), np.uint8), cropped=True)

    def embed(self, query: Query) -> np.ndarray:
        """The embedding of a ``Query``, ``(width,)``; composed as in the paper's section 7.

        Raises:
            InputError: if the query is empty or too long.
        """
        return value_or_raise(*self._embed_all([query]))

    def _embed_all(self, queries: Sequence[Query]) -> list[np.ndarray | InputError]:
        """Like ``embed``, with the sentences of all queries embedded together."""
        texts = [checked_texts(query) for query in queries]
        sentences = [text for own in texts if isinstance(own, tuple) for text in own if text]
        rows = {text: row for row, text in enumerate(dict.fromkeys(sentences))}
        embeddings = self.embed_texts(list(rows)) if rows else []
        found: list[np.ndarray | InputError] = []
        for query, own in zip(queries, texts, strict=True):
            if isinstance(own, InputError):
                found.append(own)
                continue
            try:
                found.append(
                    self._composed(
                        query, *(embeddings[rows[text]] if text else None for text in own)
                    )
                )
            except InputError as error:
                found.append(error.with_traceback(None))
        return found

    def _composed(
        self, query: Query, text: np.ndarray | None, without: np.ndarray | None
    ) -> np.ndarray:
        """The embedding of a query, from the embeddings of its two sentences."""
        if query.image:
            found = self.embed_image(query.image)
            found = found if text is None else _compose(found, text, query.text_weight)
        elif text is not None:
            found = text
        else:
            assert without is not None
            return -without
        return found if without is None else _compose(found, without, -query.without_weight)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of sentences, ``(sentences, width)``, equal to ``model.encode_texts``."""
        return self.model.encode_texts(list(texts), _TEXTS)

    def embed_image(self, encoded: bytes) -> np.ndarray:
        """The embedding of an encoded image, ``(width,)``; InputError if it does not decode."""
        if len(encoded) > MAX_IMAGE_BYTES:
            raise InputError(f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB")
        place = Place(member="the image")
        with self._pixels.taken(pixels_of(encoded)):
            crop = embedding.decode_bytes(encoded, place, self.model.preprocessor)
        return self.model.encode_images(crop[None], cropped=True)[0]

    def find(self, query: Query, count: int = 24, probes: int | None = None) -> list[Match]:
        """The images most similar to a ``Query``.

        Args:
            query: a ``Query``.
            count: number of images.
            probes: number of lists to search in a large index; None for the default.

        Returns:
            A list of ``Match``, best first, without images whose embedding is damaged.

        Raises:
            InputError: if the query is invalid or the index is damaged.
        """
        found = value_or_raise(*self.find_all([(query, count)], probes))
        thumbnail = self.index.thumbnail
        return [dataclasses.replace(match, thumbnail=thumbnail(match.place)) for match in found]

    def find_all(
        self, asked: Sequence[tuple[Query, int]], probes: int | None = None
    ) -> list[list[Match] | InputError]:
        """Like ``find``, for several queries at a time and without thumbnails.

        Args:
            asked: queries, each with the number of images to find.
            probes: number of lists to search in a large index; None for the default.

        Returns:
            For each query a list of ``Match``, or the error that ``find`` would raise.
        """
        found: list[list[Match] | InputError] = [
            InputError(f"the number of results must be from 1 to {MAX_RESULTS}, not {count}")
            for _, count in asked
        ]
        rows = [row for row, (_, count) in enumerate(asked) if 1 <= count <= MAX_RESULTS]
        embedded = self._embed_all([asked[row][0] for row in rows])
        # Queries with the same count are searched together, so that no answer depends on other
        # counts.
        groups: dict[int, list[tuple[int, np.ndarray]]] = {}
        for row, own in zip(rows, embedded, strict=True):
            if isinstance(own, InputError):
                found[row] = own
            else:
                groups.setdefault(asked[row][1], []).append((row, own))
        for count, group in groups.items():
            queries = np.stack([own for _, own in group])
            places, scores = self.index.search(queries, count, probes)
            for (row, _), own_places, own_scores in zip(group, places, scores, strict=True):
                try:
                    found[row] = self._matches(own_places, own_scores)
                except InputError as error:
                    found[row] = error.with_traceback(None)
        return found

    def _matches(self, places: np.ndarray, scores: np.ndarray) -> list[Match]:
        return [
            Match(place, score, **dataclasses.asdict(self.index.label(place)))
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
            if place >= 0 and np.isfinite(score)
        ]

    def original(self, place: int) -> bytes:
        """The file of an image as a JPEG without metadata; empty if it is unknown or unreadable.

        Its longer side is at most ``originals.MAX_SIZE`` pixels.
        """
        name = self.index.label(place).name
        encoded = self.originals.read(name) if self.originals else b""
        if not encoded:
            return b""
        with self._pixels.taken(pixels_of(encoded)):
            try:
                return make_thumbnail(encoded, MAX_SIZE, quality=90)
            except ImageFaultError:
                return b""

    def classify(
        self, encoded: bytes, class_names: Sequence[str], prompt: str = "a photo of a {}"
    ) -> dict[str, float]:
        """The probabilities of classes, most probable first.

        Args:
            encoded: an encoded image.
            class_names: strings; empty and repeated ones are ignored.
            prompt: a sentence with ``{}`` for the name.

        Returns:
            A dict of probabilities by name.

        Raises:
            InputError: if the image or the classes are missing.
        """
        if not encoded:
            raise InputError("no image to classify")
        if len(class_names) > MAX_CLASSES:
            raise InputError(f"more than {MAX_CLASSES:,} classes")
        names = list(dict.fromkeys(filter(None, map(clean_text, class_names))))
        if not names:
            raise InputError("no class names")
        prompt = clean_text(prompt)
        if "{}" not in prompt:
            raise InputError("the prompt has no {} for the class name")
        texts = self.embed_texts(zero_shot.fill_prompts(names, [prompt]))
        logits = self.embed_image(encoded) @ texts.T / self.model.temperature
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        order = np.argsort(-probabilities, kind="stable")
        return {names[place]: float(probabilities[place]) for place in order}


def value_or_raise(result: T | InputError) -> T:
    """Returns a result, or raises it if it is an InputError."""
    if not isinstance(result, InputError):
        return result
    try:
        raise result
    finally:
        # Otherwise the traceback would keep the error and all images in its frames alive.
        del result


def _compose(embedding: np.ndarray, text: np.ndarray, weight: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        composed = compose(embedding, text, weight)
    if not np.isfinite(composed).all():
        raise InputError("nothing is left to look for: added and subtracted parts cancel out")
    return composed
