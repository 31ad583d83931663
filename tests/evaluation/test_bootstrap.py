import numpy as np
import pytest

from align_keras.evaluation.bootstrap import bootstrap_means, hits_of, interval


def test_the_bootstrap_matches_a_reference_that_draws_whole_groups():
    rng = np.random.default_rng(3)
    right, groups = rng.random((2, 40)) < 0.4, rng.integers(0, 9, 40) * 10
    found = bootstrap_means(right, groups, samples=20, seed=7)
    names, draws = np.unique(groups), np.random.default_rng(7)
    for sample in range(20):
        drawn = names[draws.integers(0, len(names), len(names))]
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        np.testing.assert_allclose(found[:, sample], right[:, rows].mean(axis=1))
    np.testing.assert_array_equal(bootstrap_means(right[0], groups, 20, 7), found[0])


def test_the_interval_of_single_queries_is_that_of_a_proportion():
    right = np.arange(400) < 100
    low, high = interval(bootstrap_means(right, np.arange(400), 2_000))
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)


def test_captions_that_hit_together_widen_the_interval():
    right = np.repeat(np.arange(100) < 25, 5)
    alone = interval(bootstrap_means(right, np.arange(500)))
    together = interval(bootstrap_means(right, np.repeat(np.arange(100), 5)))
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])


def test_ranks_become_the_hits_of_every_recall():
    outcomes = {
        "i2t_rank": np.array([0, 7]),
        "t2i_rank": np.array([0, 4, 5, 20]),
        "t2i_group": np.array([0, 0, 1, 1]),
        "rank": np.array([3]),
        "swap_accuracy": np.array([True, False]),
        "label": np.array([1]),
        "queries": np.array("digest"),
    }
    found = {name: own.mean for name, own in hits_of(outcomes).items()}
    assert found == {
        **{"i2t_recall_at_1": 0.5, "i2t_recall_at_5": 0.5, "i2t_recall_at_10": 1.0},
        **{"t2i_recall_at_1": 0.25, "t2i_recall_at_5": 0.5, "t2i_recall_at_10": 0.75},
        **{"top_1": 0.0, "top_5": 1.0, "swap_accuracy": 0.5},
    }
    assert hits_of(outcomes)["t2i_recall_at_1"].groups.tolist() == [0, 0, 1, 1]
