"""What is asked of an index: sentences, images and both; and classes of an image.

Everything that comes in is bounded and checked here, since a page passes on what strangers send.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from align_keras.data.examples import image_files
from align_keras.errors import InputError, Place
from align_keras.evaluation import embedding, zero_shot
from align_keras.evaluation.composed_search import compose
from align_keras.evaluation.fingerprint import is_fingerprint_of
from align_keras.search.image_index import ImageIndex

MAX_CHARACTERS = 1_000
MAX_IMAGE_BYTES = 20 << 20
MAX_CLASSES = 1_000
MAX_RESULTS = 200


@dataclasses.dataclass(frozen=True)
class Query:
    """What is looked for: a sentence, an image, or an image changed by a sentence."""

    text: str = ""
    """A sentence."""
    image: bytes = b""
    """An encoded image."""
    text_weight: float = 2.0
    """Of the sentence beside an image, the paper's 2 by default; below 0 it is taken away."""
    without: str = ""
    """Words to take away."""
    without_weight: float = 1.0
    """How much of them."""


@dataclasses.dataclass(frozen=True)
class Match:
    """An image that was found."""

    place: int
    score: float
    name: str
    caption: str
    thumbnail: bytes
    """A JPEG; empty if the index keeps none."""


class ImageSearch:
    """A model and the index that it made.

    Args:
        model: an ``AlignDualEncoder`` with its preprocessor.
        index: an ``ImageIndex``.

    Raises:
        InputError: if the index is of another model.
    """

    def __init__(self, model: Any, index: ImageIndex) -> None:
        header = index.header
        is_its_own = is_fingerprint_of(header.fingerprint, model)
        if not is_its_own or model.backbone.projection_dim != header.width:
            raise InputError(
                "the index is of another model or of other weights",
                remedy=f"give the model that made it ({header.model} as it was then), or build "
                "the index again",
            )
        self.model = model
        self.index = index

    def embed(self, query: Query) -> np.ndarray:
        """The embedding of a ``Query``, ``(width,)``; composed as in the paper's section 7.

        Raises:
            InputError: if there is nothing to look for, or too much.
        """
        text, without = clean_text(query.text), clean_text(query.without)
        for weight in (query.text_weight, query.without_weight):
            if not abs(weight) <= 100:
                raise InputError(f"a weight must be a number from -100 to 100, not {weight}")
        if not text and not query.image:
            raise InputError("nothing to look for", remedy="give a sentence or an image")
        found = self.embed_image(query.image) if query.image else self.model.encode_texts(text)[0]
        if query.image and text:
            found = self._composed(found, text, query.text_weight)
        if without:
            found = self._composed(found, without, -query.without_weight)
        return found

    def _composed(self, embedding: np.ndarray, text: str, weight: float) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            composed = compose(embedding, self.model.encode_texts(text)[0], weight)
        if not np.isfinite(composed).all():
            raise InputError("nothing is left to look for: what is added and taken away cancel out")
        return composed

    def embed_image(self, encoded: bytes) -> np.ndarray:
        """The embedding of an encoded image, ``(width,)``; InputError if it is none."""
        if len(encoded) > MAX_IMAGE_BYTES:
            raise InputError(f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB")
        place = Place(member="the image")
        pixels = embedding.decode_bytes(encoded, place, self.model.preprocessor)
        return self.model.encode_images(pixels[None])[0]

    def find(self, query: Query, count: int = 24, probes: int | None = None) -> list[Match]:
        """The images most like a ``Query``.

        Args:
            query: a ``Query``.
            count: how many.
            probes: lists of a large index to look into; None for the default.

        Returns:
            A list of ``Match``, best first; none with a damaged embedding.

        Raises:
            InputError: if the query cannot be asked or the index is damaged.
        """
        if not 1 <= count <= MAX_RESULTS:
            raise InputError(f"the number of results must be from 1 to {MAX_RESULTS}, not {count}")
        places, scores = self.index.search(self.embed(query)[None], count, probes)
        return [
            Match(
                place,
                score,
                **dataclasses.asdict(self.index.label(place)),
                thumbnail=self.index.thumbnail(place),
            )
            for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)
            if place >= 0 and np.isfinite(score)
        ]

    def classify(
        self, encoded: bytes, class_names: Sequence[str], prompt: str = "a photo of a {}"
    ) -> dict[str, float]:
        """The probabilities of classes, the likeliest first.

        Args:
            encoded: an encoded image.
            class_names: strings; empty ones and repeated ones are left out.
            prompt: a sentence with ``{}`` for the name.

        Returns:
            A dict of probabilities by name.

        Raises:
            InputError: if there is no image or class to compare.
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
        texts = self.model.encode_texts(zero_shot.fill_prompts(names, [prompt]))
        logits = self.embed_image(encoded) @ texts.T / self.model.temperature
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        order = np.argsort(-probabilities, kind="stable")
        return {names[place]: float(probabilities[place]) for place in order}


def clean_text(text: str) -> str:
    """A text in one line, without white space around it; InputError if it is too long."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"a text of {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    return " ".join(text.encode("utf-8", "replace").decode().split())


def read_image(path: str | Path) -> bytes:
    """The bytes of an image file to look for; InputError if they cannot be read."""
    try:
        return image_files.read_file(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(reason, Place(str(path))) from None


def model_to_load(index: ImageIndex, model: str = "") -> str:
    """The model that a search is to load: the given one, or the folder that the index names.

    Raises:
        InputError: if the index names an address. An index may come from elsewhere, and what it
            names is not fetched unasked.
    """
    named = index.header.model
    if not model and "://" in named:
        raise InputError(f"the index names {named}", remedy="to fetch it, give it as <model>")
    return model or named
