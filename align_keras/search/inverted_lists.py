"""Approximate search: images are in lists by nearest centroid; a query reads few lists."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from align_keras.errors import InputError

#: Default number of lists that a search reads.
PROBES = 32
# k-means: number of sampled images per list, and of iterations.
_SAMPLES_PER_LIST = 64
_ROUNDS = 10
# Number of embeddings converted to float32 at a time.
_CHUNK = 1 << 16


def require_faiss() -> Any:
    """The library faiss; raises InputError, with a remedy, if it is not installed."""
    try:
        import faiss
    except ImportError:
        raise InputError(
            "lists of images need faiss",
            remedy="pip install 'align-keras[search]', or search all images: with <exact> in a "
            "search, with a higher <exact_below> in an index",
        ) from None
    return faiss


def cluster(embeddings: np.ndarray, num_lists: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divides images into lists by k-means on the sphere.

    Args:
        embeddings: unit norm, ``(images, width)``; may be memory-mapped.
        num_lists: number of lists, at most the number of images.
        seed: decides the sample and the start of k-means.

    Returns:
        ``(centroids, lists)``: float32, ``(num_lists, width)``, and the list of each image, int32,
        ``(images,)``.

    Raises:
        InputError: if faiss is not installed.
    """
    faiss = require_faiss()
    sample = np.random.default_rng(seed).permutation(len(embeddings))
    sample = np.sort(sample[: _SAMPLES_PER_LIST * num_lists])
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        num_lists,
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        # By default, faiss warns below 39 images per list.
        min_points_per_centroid=1,
    )
    kmeans.train(np.ascontiguousarray(embeddings[sample], np.float32))
    lists = np.empty(len(embeddings), np.int32)
    for start, chunk in _chunks(embeddings):
        lists[start : start + len(chunk)] = kmeans.index.search(chunk, 1)[1][:, 0]
    return kmeans.centroids.reshape(num_lists, -1).astype(np.float32), lists


class InvertedLists:
    """Faiss's inverted lists, filled with embeddings that are already assigned to lists.

    Embeddings are float16 in memory. The lists are filled from plain arrays at every start, which
    takes seconds. They are not stored in faiss's file format, because faiss trusts such files and
    an index may come from an untrusted source.

    Args:
        embeddings: unit norm, ``(images, width)``; may be memory-mapped.
        centroids: float32, ``(lists, width)``.
        lists: the list of each image, integers, ``(images,)``.

    Raises:
        InputError: if faiss is not installed.
    """

    def __init__(self, embeddings: np.ndarray, centroids: np.ndarray, lists: np.ndarray) -> None:
        faiss = require_faiss()
        width = embeddings.shape[1]
        # The index refers to this object but does not keep it alive.
        self._centroids = faiss.IndexFlatIP(width)
        self._centroids.add(np.ascontiguousarray(centroids))
        self._index = faiss.IndexIVFScalarQuantizer(
            self._centroids,
            width,
            len(centroids),
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # not by residual: stores embeddings unchanged
        )
        self._index.train(np.ascontiguousarray(centroids))
        self._faiss = faiss
        for start, chunk in _chunks(embeddings):
            ids = np.arange(start, start + len(chunk))
            own = np.ascontiguousarray(lists[start : start + len(chunk)], np.int64)
            pointers = (faiss.swig_ptr(array) for array in (chunk, ids, own))
            self._index.add_core(len(chunk), *pointers)

    def search(self, queries: np.ndarray, count: int, probes: int | None = None) -> np.ndarray:
        """The indices of the best images in the lists nearest to each query.

        Returns:
            Integers, ``(queries, count)``; -1 if the lists hold fewer images.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        parameters = self._faiss.SearchParametersIVF(nprobe=probes or PROBES)
        return self._index.search(queries, count, params=parameters)[1]


def _chunks(embeddings: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(embeddings), _CHUNK):
        yield start, np.ascontiguousarray(embeddings[start : start + _CHUNK], np.float32)
