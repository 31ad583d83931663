import numpy as np
import pytest

from align_keras.search import exact_search, inverted_lists


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 22])
def test_exact_search_is_that_of_a_sorted_list(chunk, monkeypatch):
    monkeypatch.setattr(exact_search, "_CHUNK_NUMBERS", chunk)
    monkeypatch.setattr(exact_search, "_QUERIES", 3)
    rng = np.random.default_rng(0)
    embeddings, queries = unit(rng, 57, 8), unit(rng, 7, 8)
    places, scores = exact_search.ranked(
        queries, embeddings, exact_search.nearest(queries, embeddings, 5)
    )
    expected = queries.astype(float) @ embeddings.T.astype(float)
    np.testing.assert_array_equal(places, np.argsort(-expected)[:, :5])
    np.testing.assert_allclose(scores, np.sort(expected)[:, ::-1][:, :5], atol=1e-6)


def test_equal_images_tie_and_broken_embeddings_come_last():
    rng = np.random.default_rng(0)
    embeddings = unit(rng, 20, 8)
    embeddings[[3, 11, 19]] = embeddings[7]
    embeddings[5] = np.nan
    query = embeddings[7:8]
    places, scores = exact_search.ranked(
        query, embeddings, exact_search.nearest(query, embeddings, 20)
    )
    assert places[0, :4].tolist() == [3, 7, 11, 19]
    assert len(set(scores[0, :4].tolist())) == 1
    assert places[0, -1] == 5


def test_opening_every_list_is_exact_and_a_few_nearly():
    rng = np.random.default_rng(0)
    centres = unit(rng, 20, 16)
    embeddings = centres[rng.integers(20, size=2000)] + 0.2 * unit(rng, 2000, 16)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    centroids, lists = inverted_lists.cluster(embeddings, 40)
    assert centroids.shape == (40, 16)
    np.testing.assert_array_equal(lists, np.argmax(embeddings @ centroids.T, 1))
    index = inverted_lists.InvertedLists(embeddings, centroids, lists)
    queries = embeddings[::50]
    right = exact_search.nearest(queries, embeddings, 5)

    def found(probes):
        places = index.search(queries, 5, probes)
        return np.mean([len({*own} & {*row}) for own, row in zip(places, right, strict=True)]) / 5

    # Very similar neighbours may swap places in float16.
    assert found(40) > 0.97
    assert found(8) > 0.9
    assert found(1) < found(40)
