import itertools

import numpy as np
import pytest

from align_keras.evaluation import retrieval


def brute_force(queries, keys, query_groups, key_groups, k):
    """Sorts the keys of each query, right ones last among equals."""
    hits = 0
    for query, group in zip(queries, query_groups, strict=True):
        order = sorted(
            range(len(keys)), key=lambda j: (-float(keys[j] @ query), key_groups[j] == group)
        )
        hits += any(key_groups[j] == group for j in order[:k])
    return hits / len(queries)


def test_recall_on_a_matrix_whose_answer_shows():
    scores = np.array(
        [
            [9, 1, 2, 3],  # own first
            [8, 7, 1, 2],  # own second
            [5, 5, 5, 5],  # a tie with all: last
            [1, 2, 3, 0],  # last
        ],
        float,
    )
    ranks = retrieval.best_positive_ranks(scores, np.eye(4), range(4), range(4))
    assert ranks.tolist() == [0, 1, 3, 3]
    assert [retrieval.recall_at_k(ranks, k) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_recall_with_ties_and_several_captions_matches_brute_force(chunk_size):
    rng = np.random.default_rng(0)
    # Small integers tie often, and exactly.
    images, texts = (rng.integers(-2, 3, (n, 3)).astype(float) for n in (12, 30))
    image_groups = np.arange(12)
    text_groups = np.concatenate([image_groups, rng.integers(0, 12, 18)])
    for (q, qg, keys, kg), k in itertools.product(
        (
            (images, image_groups, texts, text_groups),
            (texts, text_groups, images, image_groups),
        ),
        (1, 3, 5),
    ):
        ranks = retrieval.best_positive_ranks(q, keys, qg, kg, chunk_size)
        assert retrieval.recall_at_k(ranks, k) == brute_force(q, keys, qg, kg, k)


def test_metrics_use_each_image_once():
    # Two images with two captions each; only the second image finds one of its own.
    images = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    texts = np.array([[0.0, 1.0], [0.0, 0.9], [0.1, 0.95], [0.05, 1.1]])
    metrics, chance = retrieval.retrieval_metrics(images, texts, [4, 4, 2, 2])
    assert metrics["i2t_recall_at_1"] == 0.5
    assert metrics["t2i_recall_at_1"] == 0.5
    assert metrics["i2t_recall_at_5"] == metrics["t2i_recall_at_10"] == 1.0
    assert chance["t2i_recall_at_1"] == 0.5
    assert chance["i2t_recall_at_1"] == 0.5


def test_chance_matches_a_simulation():
    rng = np.random.default_rng(0)
    hits = [(rng.permutation(20)[:5] < 3).any() for _ in range(20_000)]
    assert retrieval.chance_recall_at_k(20, [3], 5) == pytest.approx(np.mean(hits), abs=0.01)
    assert retrieval.chance_recall_at_k(500, [1] * 3, 5) == pytest.approx(0.01)
    assert retrieval.chance_recall_at_k(3, [1], 10) == 1.0


def test_collapsed_or_diverged_embeddings_retrieve_nothing():
    for value in (0.5, np.nan):
        same = np.full((20, 4), value)
        metrics, _ = retrieval.retrieval_metrics(same, same, np.arange(20))
        assert set(metrics.values()) == {0.0}


def test_a_query_without_a_right_key_is_refused():
    with pytest.raises(ValueError, match="every query needs a key of its own group"):
        retrieval.best_positive_ranks(np.eye(2), np.eye(2), [0, 1], [0, 0])
