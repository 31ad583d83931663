"""Image-text retrieval: recall at K, as pure functions on arrays."""

import math

import numpy as np

RECALL_AT = (1, 5, 10)


def best_positive_ranks(queries, keys, query_groups, key_groups, chunk_size=1024):
    """How many wrong keys score at least as high as each query's best right one.

    A tie counts against the model, so that embeddings that are all the same retrieve nothing.

    Args:
        queries: unit-norm embeddings, ``(queries, dim)``.
        keys: unit-norm embeddings, ``(keys, dim)``.
        query_groups: integers, ``(queries,)``; a key is right if its group is the query's.
        key_groups: integers, ``(keys,)``.
        chunk_size: queries scored at a time, which bounds memory.

    Returns:
        Integers from 0 (the best), ``(queries,)``.

    Raises:
        ValueError: if a query has no right key.
    """
    query_groups, key_groups = np.asarray(query_groups), np.asarray(key_groups)
    if not np.isin(query_groups, key_groups).all():
        raise ValueError("every query needs a key of its own group")
    ranks = []
    for start in range(0, len(queries), chunk_size):
        chunk = slice(start, start + chunk_size)
        scores = queries[chunk] @ keys.T
        right = query_groups[chunk, None] == key_groups[None, :]
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        # Not `scores >= best`: where a model has diverged, NaN must lose too.
        ranks.append(np.sum(~(scores < best) & ~right, axis=1))
    return np.concatenate(ranks)


def recall_at_k(ranks, k):
    """The fraction of queries with a right key among the first ``k``."""
    return float(np.mean(ranks < k))


def chance_recall_at_k(num_keys, num_right, k):
    """Expected recall of keys in random order, for queries with ``num_right`` right keys each.

    Args:
        num_keys: keys in all.
        num_right: right keys of each query, ``(queries,)``.
        k: rank.
    """
    k = min(k, num_keys)
    misses = [
        math.comb(num_keys - right, k) / math.comb(num_keys, k)
        for right in np.asarray(num_right).tolist()
    ]
    return 1.0 - float(np.mean(misses))


def retrieval_metrics(image_embeddings, text_embeddings, groups):
    """Recalls of both directions over pairs, and their chance.

    Args:
        image_embeddings: unit norm, ``(pairs, dim)``.
        text_embeddings: unit norm, ``(pairs, dim)``.
        groups: integers, ``(pairs,)``: pairs of one image share a group. Its image takes part
            once, each of its captions counts as right.

    Returns:
        ``(metrics, chance)``: dicts of fractions named ``i2t_recall_at_1`` and so on; image
        to text asks with images, text to image with captions.
    """
    groups = np.asarray(groups)
    image_groups, first = np.unique(groups, return_index=True)
    images = image_embeddings[first]
    _, captions_an_image = np.unique(groups, return_counts=True)
    ranks = {
        "i2t": best_positive_ranks(images, text_embeddings, image_groups, groups),
        "t2i": best_positive_ranks(text_embeddings, images, groups, image_groups),
    }
    candidates = {
        "i2t": (len(groups), captions_an_image),
        "t2i": (len(images), np.ones(1, int)),
    }
    metrics, chance = {}, {}
    for direction in ranks:
        for k in RECALL_AT:
            name = f"{direction}_recall_at_{k}"
            metrics[name] = recall_at_k(ranks[direction], k)
            chance[name] = chance_recall_at_k(*candidates[direction], k)
    return metrics, chance
