"""Recall of an index: queries it with the captions of its own images."""

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from align_keras import lazy, progress
from align_keras.data.examples import ExampleSet
from align_keras.errors import InputError
from align_keras.evaluation import retrieval
from align_keras.evaluation.metrics import RECALL_AT
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
    from align_keras.search.image_search import ImageSearch
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")

# Number of ranked results; more than 10, so that ties at the tenth place are noticed.
_RANKED = 50


@dataclasses.dataclass(frozen=True)
class CaptionOfImage:
    """A caption and the id of its image."""

    image_id: str
    caption: str


@dataclasses.dataclass(frozen=True)
class IndexRecall:
    """The result of ``measure_recall``."""

    title: str
    metrics: dict[str, float]
    """``t2i_recall_at_1`` and so on."""
    chance: dict[str, float]
    milliseconds: float
    """Time per query if all queries are asked together."""


def read_captions(data: ExampleSet) -> list[CaptionOfImage]:
    """Every caption of the data; raises InputError if there is none, or one is not text."""
    data.check_captions()
    return [CaptionOfImage(own.image_id, caption) for own in data for caption in own.queries]


def measure_recall(
    search: "ImageSearch", captions: list[CaptionOfImage], probes: int | None = None
) -> IndexRecall:
    """Queries with every caption; ties count as misses, as in ``evaluation.retrieval``.

    Args:
        search: a model and its index.
        captions: the captions of all images in the index.
        probes: number of lists to search in a large index; None for the default.

    Raises:
        InputError: if the captions do not belong to the images of the index.
    """
    index = search.index
    place_of = {index.label(place).name: place for place in range(len(index))}
    right = [place_of.get(own.image_id) for own in captions]
    if None in right or set(right) != set(place_of.values()):
        raise InputError(
            "the images of the data are not those of the index",
            remedy="give the data that the index was made from",
        )
    queries = embedding.embed_texts(search.model, [own.caption for own in captions])
    start = time.monotonic()
    with progress.working("searching the index"):
        places, scores = index.search(queries, _RANKED, probes)
    seconds = time.monotonic() - start
    is_right = places == np.array(right)[:, None]
    own_scores = np.where(is_right, scores, -np.inf).max(1, keepdims=True)
    ranks = np.where(is_right.any(1), (scores >= own_scores).sum(1) - 1, len(index))
    way = "approximate" if index.is_approximate else "exact"
    return IndexRecall(
        f"{counted(len(index), 'image')}, {counted(len(queries), 'caption')}, {way}",
        {f"t2i_recall_at_{k}": retrieval.recall_at_k(ranks, k) for k in RECALL_AT},
        {f"t2i_recall_at_{k}": k / len(index) for k in RECALL_AT},
        1000 * seconds / len(queries),
    )
