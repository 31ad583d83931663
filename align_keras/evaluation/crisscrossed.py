"""Crisscrossed Captions (Parekh et al., 2021): human judgements of pairs from COCO's test set.

Pairs of two captions (STS), two images (SIS), or a caption and an image (SITS) are rated from 0 to
5. The ratings are correlated with a model's similarities, and give further correct answers for the
four retrieval tasks. This module has pure functions on arrays, and a reader of the published files.
"""

import csv
import zlib
from collections.abc import Sequence

import numpy as np

from align_keras import files, paths, progress
from align_keras.errors import InputError, MissingInputError, Place

# Pairs with at least this rating are correct answers for each other.
POSITIVE_FROM = 3.0
_COLUMNS = {
    "sts": ("caption1", "caption2"),
    "sis": ("image1", "image2"),
    "sits": ("caption", "image"),
}


def read_judgements(
    directory: str | paths.AnyPath, kind: str, split: str = "test"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads ``KIND_SPLIT.csv``, or the same file with ``.gz``, of the published data.

    Args:
        directory: folder of the files.
        kind: ``sts``, ``sis`` or ``sits``.
        split: ``val`` or ``test``.

    Returns:
        ``(first, second, scores)``: COCO's ids (of annotations for captions), integers
        ``(pairs,)``, and ratings ``(pairs,)``. In SITS the caption comes first.

    Raises:
        MissingInputError: if the file does not exist.
        InputError: if the file is not such a table.
    """
    plain = paths.path_of(directory) / f"{kind}_{split}.csv"
    found = [path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()]
    if not found:
        raise MissingInputError(f"no {plain.name} or {plain.name}.gz", Place(str(directory)))
    first, second = _COLUMNS[kind]
    place = Place(str(found[0]))
    try:
        with files.opened(found[0], encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, EOFError, OSError, zlib.error, csv.Error) as error:
        raise InputError(f"not readable ({error})", place, "download it again") from None
    try:
        return (
            np.array([coco_id(row[first]) for row in rows]),
            np.array([coco_id(row[second]) for row in rows]),
            np.array([float(row["agg_score"]) for row in rows]),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"it lacks the columns {first}, {second} and agg_score of Crisscrossed Captions, or "
            f"a column has no numbers; it has {', '.join(map(str, rows[0])) if rows else 'no row'}",
            place,
            "download it again",
        ) from None


def coco_id(name: str) -> int:
    """COCO's id in ``COCO_val2014_000000205866.jpg`` or ``COCO_val2014:sentid:732091``."""
    return int(name.rpartition(":")[2].rpartition("_")[2].removesuffix(".jpg"))


def positive_places(
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
    first_ids: np.ndarray | Sequence[int],
    second_ids: np.ndarray | Sequence[int],
) -> list[list[int]]:
    """For each of ``first_ids``, the indices of the ``second_ids`` that were rated correct.

    Args:
        first: ids, ``(pairs,)``.
        second: ids, ``(pairs,)``.
        scores: ratings, ``(pairs,)``.
        first_ids: the queries, ``(queries,)``.
        second_ids: the candidates, ``(keys,)``; pairs with other ids are ignored.

    Returns:
        A list of sorted integer lists.
    """
    rows = {one: row for row, one in enumerate(np.asarray(first_ids).tolist())}
    columns = {one: column for column, one in enumerate(np.asarray(second_ids).tolist())}
    places: list[set[int]] = [set() for _ in rows]
    chosen = np.asarray(scores) >= POSITIVE_FROM
    for one, other in zip(first[chosen].tolist(), second[chosen].tolist(), strict=True):
        if one in rows and other in columns:
            places[rows[one]].add(columns[other])
    return [sorted(own) for own in places]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; ties get the mean of their ranks."""
    x, y = (_mean_ranks(np.asarray(values, float)) for values in (x, y))
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale else float("nan")


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def bootstrap_correlation(
    queries: np.ndarray,
    similarities: np.ndarray,
    scores: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Spearman's correlation of similarities with ratings, as in the paper of the data set.

    A sample takes half of the queries, without repetition, and for each query one of the items that
    it was rated with.

    Args:
        queries: ids, ``(pairs,)``; the first of each pair is the query.
        similarities: similarities of a model, ``(pairs,)``.
        scores: ratings, ``(pairs,)``.
        samples: number of samples.
        seed: decides the samples.

    Returns:
        ``(mean, deviation)`` over the samples.

    Raises:
        InputError: if there are fewer than four queries.
    """
    order = np.argsort(queries, kind="stable")
    _, first, count = np.unique(np.asarray(queries)[order], return_index=True, return_counts=True)
    if len(first) < 4:
        raise InputError(f"a correlation needs at least four judged queries, not {len(first)}")
    similarities, scores = np.asarray(similarities)[order], np.asarray(scores)[order]
    rng = np.random.default_rng(seed)
    correlations = []
    for _ in progress.watch(range(samples), "bootstrapping", "sample", samples):
        chosen = rng.permutation(len(first))[: len(first) // 2]
        pairs = first[chosen] + rng.integers(0, count[chosen])
        correlations.append(spearman(similarities[pairs], scores[pairs]))
    return float(np.mean(correlations)), float(np.std(correlations))
