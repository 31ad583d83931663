import itertools
import tracemalloc

import numpy as np
import pytest

from align_keras.evaluation import retrieval


def brute_force(queries, keys, query_groups, key_groups, k):
    """Sorts the keys of each query; among equal scores, right keys come last."""
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
            [9, 1, 2, 3],  # the own key is first
            [8, 7, 1, 2],  # second
            [5, 5, 5, 5],  # ties with all keys, and so counts as last
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
    # Scores of small integers tie often and exactly.
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
    with pytest.raises(ValueError, match="every query needs a key of the same group"):
        retrieval.best_positive_ranks(np.eye(2), np.eye(2), [0, 1], [0, 0])


def test_equal_keys_tie_whatever_their_place_and_the_chunk():
    # In float32, the sums of a matrix product depend on the column of a key and on the chunk.
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(size=(n, 640)).astype("float32") for n in (33, 40))
    keys = np.concatenate([keys, keys[::-1], keys])
    groups = np.arange(120)
    expected = None
    for chunk_size in (1, 2, 5, 33):
        ranks = retrieval.best_positive_ranks(queries, keys, np.arange(33), groups, chunk_size)
        expected = ranks if expected is None else expected
        np.testing.assert_array_equal(ranks, expected)
    # Each right key has two wrong copies, which tie with it.
    assert ranks.min() >= 2
    assert set((ranks - 2) % 3) == {0}


@pytest.mark.parametrize("queries_are_keys", [False, True])
def test_listed_positives_match_brute_force(queries_are_keys):
    rng = np.random.default_rng(1)
    queries = rng.integers(-2, 3, (25, 3)).astype(float)
    keys = queries if queries_are_keys else rng.integers(-2, 3, (40, 3)).astype(float)
    positives = [rng.permutation(len(keys))[: rng.integers(0, 6)].tolist() for _ in queries]
    ranks = retrieval.ranks_among_positives(queries, keys, positives, queries_are_keys, 7)
    for row, (query, right) in enumerate(zip(queries, positives, strict=True)):
        others = [j for j in range(len(keys)) if not (queries_are_keys and j == row)]
        right = set(right) & set(others)
        scores = {j: float(keys[j] @ query) for j in others}
        if right:
            best = max(scores[j] for j in right)
            assert ranks[row] == sum(scores[j] >= best for j in others if j not in right)
        else:
            assert ranks[row] == -1


def test_full_metrics_and_folds_are_those_of_their_parts():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(20, 6))
    image_of_text = rng.permutation(np.repeat(np.arange(20), 5))
    texts = images[image_of_text] + rng.normal(size=(100, 6))
    metrics, chance = retrieval.full_metrics(images, texts, image_of_text)
    ranks = retrieval.cross_modal_ranks(images, texts, image_of_text)
    six = [metrics[f"{way}_recall_at_{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert metrics["mean_recall"] == pytest.approx(np.mean(six))
    assert metrics["t2i_median_rank"] == np.median(ranks["t2i"]) + 1
    assert chance["i2t_recall_at_1"] == pytest.approx(5 / 100)
    assert 0 < chance["mean_recall"] < metrics["mean_recall"]
    halves = []
    for part in (slice(0, 10), slice(10, 20)):
        own = np.isin(image_of_text, np.arange(20)[part])
        halves.append(
            retrieval.full_metrics(images[part], texts[own], image_of_text[own] - part.start)[0]
        )
    folds, _ = retrieval.full_metrics(images, texts, image_of_text, fold_size=10)
    for name, value in folds.items():
        assert value == pytest.approx((halves[0][name] + halves[1][name]) / 2), name
    with pytest.raises(ValueError, match="20 images are fewer than a fold of 1,000"):
        retrieval.full_metrics(images, texts, image_of_text, fold_size=1000)


def test_scores_are_not_all_held_at_once():
    rng = np.random.default_rng(3)
    images, texts = (rng.normal(size=(n, 16)).astype("float32") for n in (3_000, 15_000))
    tracemalloc.start()
    try:
        ranks = retrieval.cross_modal_ranks(images, texts, np.repeat(np.arange(3_000), 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(ranks["i2t"]) == 3_000
    assert peak < 2**28 < 8 * 3_000 * 15_000


def test_captions_that_also_belong_to_another_image_are_counted():
    captions = ["tomato", "basil", "tomato", "basil", "rocket"]
    # "basil" occurs twice for image 1, but for no other image
    assert retrieval.count_shared_captions(captions, [0, 1, 2, 1, 2]) == 2
    assert retrieval.count_shared_captions(captions, np.array([0, 1, 2, 3, 4])) == 4
    assert retrieval.describe_shared_captions(0, 5) == ""
    line = retrieval.describe_shared_captions(1_204, 2_000)
    assert line.startswith("1,204 of 2,000 captions belong to more than one image. ")
    assert "R@1 cannot reach 100 %" in line
