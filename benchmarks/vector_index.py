"""Compares vector indexes for image search: build time, query time, memory and recall.

    python benchmarks/vector_index.py [--width=640] [--images 10000 100000 1000000] [--centres=1000]

Embeddings are generated points around --centres centres in a space of 64 dimensions. They are
rotated into the full width, noise is added, and they are scaled to unit norm, so that neighbours
exist as among real images. Queries are images with noise added. Each case runs in its own process
on memory-mapped float32 embeddings. Memory is that of the process without the pages of the mapped
file. Recall is the share of the exact ten nearest images that are found. Libraries that are not
installed are left out.
"""

import argparse
import importlib.util
import json
import re
import tempfile
import time
from pathlib import Path

import measure
import numpy as np

from align_keras.search import exact_search, inverted_lists

_QUERIES = 200
# Number of queries that are asked one by one.
_SINGLE = 50
_NEIGHBOURS = 10
_INTRINSIC = 64
_BLOCK = 50_000


def generate(folder, images, width, num_centres):
    """Writes embeddings, queries and the exact neighbours of the queries."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_centres, _INTRINSIC), "f4")
    turn = rng.standard_normal((_INTRINSIC, width), "f4") / np.float32(width**0.5)

    def points(count):
        latent = centres[rng.integers(num_centres, size=count)]
        latent = latent + 0.6 * rng.standard_normal(latent.shape, "f4")
        found = latent @ turn + 0.3 / width**0.5 * rng.standard_normal((count, width), "f4")
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    with (folder / "embeddings.bin").open("wb") as file:
        for start in range(0, images, _BLOCK):
            points(min(_BLOCK, images - start)).tofile(file)
    embeddings = mapped(folder, images, width)
    own = embeddings[rng.integers(images, size=_QUERIES)]
    own = own + 0.5 / width**0.5 * rng.standard_normal(own.shape, "f4")
    queries = own / np.linalg.norm(own, axis=1, keepdims=True)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "right.npy", exact_search.nearest(queries, embeddings, _NEIGHBOURS))


def mapped(folder, images, width):
    """Returns the memory-mapped embeddings."""
    return np.memmap(Path(folder) / "embeddings.bin", "f4", "r", shape=(images, width))


# === Cases: embeddings -> a function of queries and a count ===


def exact(embeddings):
    """This package's search for small indexes."""
    return lambda queries: exact_search.nearest(queries, embeddings, _NEIGHBOURS)


def lists(embeddings):
    """This package's search for large indexes: faiss's inverted lists, float16."""
    divided = inverted_lists.cluster(embeddings, round(len(embeddings) ** 0.5))
    index = inverted_lists.InvertedLists(embeddings, *divided)
    return lambda queries: index.search(queries, _NEIGHBOURS)


def faiss_flat(embeddings):
    """Faiss's exact search, float32."""
    import faiss

    index = faiss.IndexFlatIP(embeddings.shape[1])
    for start in range(0, len(embeddings), _BLOCK):
        index.add(embeddings[start : start + _BLOCK])
    return lambda queries: index.search(queries, _NEIGHBOURS)[1]


def faiss_hnsw(embeddings):
    """Faiss's graph, float16."""
    import faiss

    index = faiss.IndexHNSWSQ(
        embeddings.shape[1], faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efSearch = 64
    index.train(embeddings[:100])
    for start in range(0, len(embeddings), _BLOCK):
        index.add(embeddings[start : start + _BLOCK])
    return lambda queries: index.search(queries, _NEIGHBOURS)[1]


def usearch_hnsw(embeddings):
    """USearch's graph, float16."""
    import usearch.index

    index = usearch.index.Index(
        ndim=embeddings.shape[1], metric="ip", dtype="f16", connectivity=32, expansion_search=64
    )
    for start in range(0, len(embeddings), _BLOCK):
        chunk = embeddings[start : start + _BLOCK]
        index.add(np.arange(start, start + len(chunk)), chunk.astype("f2"))

    def search(queries):
        found = index.search(queries.astype("f2"), _NEIGHBOURS)
        return np.atleast_2d(found.keys)

    return search


CASES = {
    "NumPy, exact": (exact, "numpy"),
    "faiss flat": (faiss_flat, "faiss"),
    "faiss lists": (lists, "faiss"),
    "faiss HNSW": (faiss_hnsw, "faiss"),
    "USearch HNSW": (usearch_hnsw, "usearch"),
}


def held():
    """Returns this process's own memory in MiB, without pages of mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024


def run_case(name, folder, images, width):
    """Measures building and searching and prints the result as JSON."""
    build, library = CASES[name]
    __import__(library)
    embeddings = mapped(folder, images, width)
    queries = np.load(Path(folder) / "queries.npy")
    before = held()
    start = time.perf_counter()
    search = build(embeddings)
    built = time.perf_counter() - start
    search(queries[:2])
    start = time.perf_counter()
    for row in range(_SINGLE):
        search(queries[row : row + 1])
    single = (time.perf_counter() - start) / _SINGLE
    start = time.perf_counter()
    found = search(queries)
    together = (time.perf_counter() - start) / len(queries)
    right = np.load(Path(folder) / "right.npy")
    hits = [
        len(set(own.tolist()) & set(row.tolist())) for own, row in zip(found, right, strict=True)
    ]
    facts = {"build": built, "single": single, "together": together, "held_mib": held() - before}
    print(json.dumps({**facts, "recall": float(np.mean(hits)) / _NEIGHBOURS}))


def main():
    """Generates the data, runs the cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument(
        "--centres",
        type=int,
        default=1_000,
        help="number of centres; more centres make the search harder",
    )
    parser.add_argument("--only", nargs="+", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--case", help="run one case, given as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        run_case(**json.loads(arguments.case))
        return
    print(f"{measure.machine()}; {arguments.width} wide, float32 on disk\n")
    heads = ("build s", "ms a query", "ms together", "MiB held", "recall@10")
    print(f"{'images':>10}  {'index':<14}" + "".join(f"{head:>13}" for head in heads))
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), images, arguments.width, arguments.centres)
            for name in arguments.only:
                if importlib.util.find_spec(CASES[name][1]) is None:
                    continue
                case = {"name": name, "folder": folder, "images": images}
                found = measure.in_child(__file__, **case, width=arguments.width)
                numbers = (
                    f"{found['build']:.1f}",
                    f"{1000 * found['single']:.2f}",
                    f"{1000 * found['together']:.2f}",
                    f"{found['held_mib']:,.0f}",
                    f"{found['recall']:.3f}",
                )
                row = "".join(f"{number:>13}" for number in numbers)
                print(f"{images:>10,}  {name:<14}{row}", flush=True)


if __name__ == "__main__":
    main()
