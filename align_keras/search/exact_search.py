"""Exact nearest neighbours by brute force, as pure functions on arrays."""

import numpy as np

# Number of embeddings, and of queries, that are converted to float32 and scored at a time.
_CHUNK_NUMBERS = 1 << 22
_QUERIES = 256


def nearest(queries: np.ndarray, embeddings: np.ndarray, count: int) -> np.ndarray:
    """The indices of the embeddings with the highest inner products.

    Args:
        queries: float32, ``(queries, width)``.
        embeddings: float32 or float16, ``(images, width)``; may be memory-mapped.
        count: results per query, at most the number of embeddings.

    Returns:
        Integers, ``(queries, count)``, in no particular order.
    """
    rows = max(count, _CHUNK_NUMBERS // embeddings.shape[1])
    parts = []
    for first in range(0, len(queries), _QUERIES):
        own = queries[first : first + _QUERIES]
        scores: np.ndarray = np.empty((len(own), 0), np.float32)
        places: np.ndarray = np.empty((len(own), 0), np.int64)
        for start in range(0, len(embeddings), rows):
            chunk = np.asarray(embeddings[start : start + rows], np.float32)
            found = _finite(own @ chunk.T)
            here = np.broadcast_to(np.arange(start, start + len(chunk)), found.shape)
            best = _largest(found, count)
            scores = np.hstack([scores, np.take_along_axis(found, best, 1)])
            places = np.hstack([places, np.take_along_axis(here, best, 1)])
            best = _largest(scores, count)
            scores = np.take_along_axis(scores, best, 1)
            places = np.take_along_axis(places, best, 1)
        parts.append(places)
    return np.concatenate(parts) if parts else np.empty((0, count), np.int64)


def ranked(
    queries: np.ndarray, embeddings: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sorts found images by similarity.

    Sums are computed in float64 and rounded to float32, so that equal images tie exactly wherever
    they are in the index. Ties keep the order of the index.

    Args:
        queries: float32, ``(queries, width)``.
        embeddings: ``(images, width)``.
        places: integers, ``(queries, count)``; -1 for no image.

    Returns:
        ``(places, scores)``, both ``(queries, count)``, best first; scores are float32. Places of
        -1 come last, with scores of -inf.
    """
    ordered, scores = np.empty_like(places), np.empty(places.shape, np.float32)
    for row, own in enumerate(np.sort(places, axis=1)):
        found = np.asarray(embeddings[own], np.float64) @ queries[row].astype(np.float64)
        found = np.where(own < 0, -np.inf, _finite(found.astype(np.float32)))
        order = np.argsort(-found, kind="stable")
        ordered[row], scores[row] = own[order], found[order]
    return ordered, scores


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def _finite(scores: np.ndarray) -> np.ndarray:
    """Ranks NaN scores, which come from damaged embeddings, below all others."""
    return np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf, posinf=-np.inf)
