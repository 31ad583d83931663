"""Retrieval with any number of correct answers: ranks and recalls, as pure functions on arrays."""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from align_keras import progress
from align_keras.evaluation.metrics import RECALL_AT
from align_keras.wording import counted

# Maximum number of scores held at once: 8 bytes each during the computation, then 4, and a few
# bools.
_CHUNK_SCORES = 1 << 23


def best_positive_ranks(
    queries: np.ndarray,
    keys: np.ndarray,
    query_groups: np.ndarray | Sequence[int],
    key_groups: np.ndarray | Sequence[int],
    chunk_size: int | None = None,
) -> np.ndarray:
    """For each query, the number of wrong keys that score at least as high as its best right key.

    A tie counts against the model, so that equal embeddings for everything retrieve nothing.

    Args:
        queries: unit-norm embeddings, ``(queries, dim)``.
        keys: unit-norm embeddings, ``(keys, dim)``.
        query_groups: integers, ``(queries,)``; a key is right if it has the same group as the
            query.
        key_groups: integers, ``(keys,)``.
        chunk_size: number of queries scored at a time, which limits memory; by default 8 million
            scores.

    Returns:
        Integers from 0 (the best), ``(queries,)``.

    Raises:
        ValueError: if a query has no right key.
    """
    query_groups, key_groups = np.asarray(query_groups), np.asarray(key_groups)
    if not np.isin(query_groups, key_groups).all():
        raise ValueError("every query needs a key of the same group")
    # Sorts the keys by group, so that those of one group are adjacent.
    order = np.argsort(key_groups, kind="stable")
    first = np.searchsorted(key_groups[order], query_groups, "left")
    end = np.searchsorted(key_groups[order], query_groups, "right")
    return _ranks(queries, keys, lambda row: order[first[row] : end[row]], False, chunk_size)


def ranks_among_positives(
    queries: np.ndarray,
    keys: np.ndarray,
    positives: Sequence[Sequence[int]],
    queries_are_keys: bool = False,
    chunk_size: int | None = None,
) -> np.ndarray:
    """Like ``best_positive_ranks``, with the right keys of each query given as a list.

    Args:
        queries: unit-norm embeddings, ``(queries, dim)``.
        keys: unit-norm embeddings, ``(keys, dim)``.
        positives: for each query the indices of its right keys, a sequence of integers.
        queries_are_keys: whether query i equals key i, which is then not an answer to it.
        chunk_size: as in ``best_positive_ranks``.

    Returns:
        Integers from 0 (the best), ``(queries,)``; -1 for a query without a right key.
    """
    return _ranks(queries, keys, lambda row: positives[row], queries_are_keys, chunk_size)


def _ranks(
    queries: np.ndarray,
    keys: np.ndarray,
    positives_of: Callable[[int], np.ndarray | Sequence[int]],
    queries_are_keys: bool,
    chunk_size: int | None,
) -> np.ndarray:
    # Products of float32 numbers are exact in float64, and the sum is rounded once, so equal keys
    # get equal scores. In float32, the order of summation would depend on a key's place in a chunk.
    keys = np.asarray(keys, np.float64)
    chunk_size = chunk_size or max(1, _CHUNK_SCORES // max(1, len(keys)))
    ranks = np.full(len(queries), -1)
    starts = range(0, len(queries), chunk_size)
    for start in progress.watch(starts, "ranking", "batch", len(starts)):
        rows = range(start, min(start + chunk_size, len(queries)))
        scores = np.asarray(queries[start : rows.stop], np.float64) @ keys.T
        scores = scores.astype(np.float32)
        for row, own in zip(rows, scores, strict=True):
            right = np.asarray(positives_of(row), int)
            if queries_are_keys:
                own[row] = -np.inf
                right = right[right != row]
            if not len(right):
                continue
            # Not `own >= best`: with a diverged model, NaN must lose as well.
            best = np.nan_to_num(own[right], nan=-np.inf).max()
            rivals = ~(own < best)
            rivals[right] = False
            if queries_are_keys:
                rivals[row] = False
            ranks[row] = np.count_nonzero(rivals)
    return ranks


def recall_at_k(ranks: np.ndarray, k: int) -> float:
    """The fraction of queries that have a right key among the first ``k``."""
    return float(np.mean(ranks < k))


def median_rank(ranks: np.ndarray) -> float:
    """The median of the ranks, counted from 1 as is usual."""
    return float(np.median(ranks)) + 1.0


def chance_recall_at_k(num_keys: int, num_right: np.ndarray, k: int) -> float:
    """Expected recall for keys in random order, if queries have ``num_right`` right keys each.

    Args:
        num_keys: number of keys.
        num_right: number of right keys of each query, ``(queries,)``.
        k: rank up to which keys count.
    """
    k = min(k, num_keys)
    numbers, times = np.unique(np.asarray(num_right), return_counts=True)
    misses = [math.comb(num_keys - right, k) / math.comb(num_keys, k) for right in numbers.tolist()]
    return 1.0 - float(np.average(misses, weights=times))


def cross_modal_ranks(
    images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray
) -> dict[str, np.ndarray]:
    """Ranks in both directions; an image may have several captions.

    Args:
        images: unit norm, ``(images, dim)``.
        texts: unit norm, ``(texts, dim)``.
        image_of_text: the index of each caption's image, ``(texts,)``; every image has a caption.

    Returns:
        A dict of integers: ``i2t`` ``(images,)`` and ``t2i`` ``(texts,)``.
    """
    places = np.arange(len(images))
    return {
        "i2t": best_positive_ranks(images, texts, places, image_of_text),
        "t2i": best_positive_ranks(texts, images, image_of_text, places),
    }


def count_shared_captions(captions: Sequence[str], image_of_text: Iterable[int]) -> int:
    """The number of captions that also belong to another image, word for word.

    Args:
        captions: the captions, ``(texts,)``.
        image_of_text: the index of each caption's image, ``(texts,)``.
    """
    images = collections.defaultdict(set)
    for caption, image in zip(captions, image_of_text, strict=True):
        images[caption].add(int(image))
    return sum(len(images[caption]) > 1 for caption in captions)


def describe_shared_captions(shared: int, total: int) -> str:
    """What ``count_shared_captions`` means for recall, in a line; empty if it is 0.

    Args:
        shared: the number of captions that also belong to another image.
        total: the number of all captions.
    """
    if not shared:
        return ""
    return (
        f"{shared:,} of {counted(total, 'caption')} belong to more than one image. Only an image's "
        "own caption counts as right, so R@1 cannot reach 100 %."
    )


def recalls(
    ranks: Mapping[str, np.ndarray], image_of_text: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Recalls of ``cross_modal_ranks`` and their chance levels.

    Returns:
        ``(metrics, chance)``: dicts of fractions named ``i2t_recall_at_1`` and so on.
    """
    candidates = {
        "i2t": (len(image_of_text), np.bincount(image_of_text)),
        "t2i": (len(ranks["i2t"]), np.ones(1, int)),
    }
    metrics, chance = {}, {}
    for direction in ranks:
        for k in RECALL_AT:
            name = f"{direction}_recall_at_{k}"
            metrics[name] = recall_at_k(ranks[direction], k)
            chance[name] = chance_recall_at_k(*candidates[direction], k)
    return metrics, chance


def retrieval_metrics(
    image_embeddings: np.ndarray, text_embeddings: np.ndarray, groups: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Recalls over pairs in both directions, and their chance levels.

    Args:
        image_embeddings: unit norm, ``(pairs, dim)``.
        text_embeddings: unit norm, ``(pairs, dim)``.
        groups: integers, ``(pairs,)``: pairs of the same image share a group. The image is ranked
            once, and each of its captions counts as right.

    Returns:
        ``(metrics, chance)``: dicts of fractions named ``i2t_recall_at_1`` and so on. In image to
        text the queries are images, in text to image they are captions.
    """
    _, first, image_of_text = np.unique(groups, return_index=True, return_inverse=True)
    ranks = cross_modal_ranks(image_embeddings[first], text_embeddings, image_of_text)
    return recalls(ranks, image_of_text)


def full_metrics(
    images: np.ndarray,
    texts: np.ndarray,
    image_of_text: np.ndarray | Sequence[int],
    fold_size: int | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of papers on Flickr30K and COCO: recalls, median ranks and mean recall.

    Args:
        images: unit norm, ``(images, dim)``.
        texts: unit norm, ``(texts, dim)``.
        image_of_text: the index of each caption's image, ``(texts,)``.
        fold_size: images per fold. If given, every figure is the mean over consecutive folds of
            this many images with their captions (COCO's "1K" has five); remaining images are
            ignored.

    Returns:
        ``(metrics, chance)``: as in ``recalls``, plus ``mean_recall``, the mean of all six recalls.
        ``metrics`` also has ``i2t_median_rank`` and ``t2i_median_rank``.

    Raises:
        ValueError: if there are fewer images than one fold needs.
    """
    image_of_text = np.asarray(image_of_text)
    size = fold_size or len(images)
    if not 0 < size <= len(images):
        raise ValueError(f"{len(images):,} images are fewer than a fold of {size:,}")
    folds = []
    for start in range(0, len(images) - size + 1, size):
        chosen = (image_of_text >= start) & (image_of_text < start + size)
        own = image_of_text[chosen] - start
        ranks = cross_modal_ranks(images[start : start + size], texts[chosen], own)
        folds.append(metrics_of_ranks(ranks, own))
    return _means([fold[0] for fold in folds]), _means([fold[1] for fold in folds])


def metrics_of_ranks(
    ranks: Mapping[str, np.ndarray], image_of_text: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Like ``full_metrics``, from the ranks that ``cross_modal_ranks`` returns."""
    metrics, chance = recalls(ranks, image_of_text)
    for values in (metrics, chance):
        values["mean_recall"] = float(np.mean(list(values.values())))
    metrics |= {f"{way}_median_rank": median_rank(ranks[way]) for way in ranks}
    return metrics, chance


def _means(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
