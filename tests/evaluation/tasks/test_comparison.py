import numpy as np
import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.tasks.comparison import compare, format_comparison
from align_keras.evaluation.tasks.result import Result, query_digest, report_result


@pytest.fixture
def runs(tmp_path):
    """Three runs: the second is better than the first; the third was evaluated on other images."""
    ranks = np.arange(200) % 20
    for run, own, asked in (("a", ranks, 1), ("b", ranks // 2, 1), ("c", ranks, 2)):
        outcomes = {"rank": own, "queries": query_digest(asked)}
        metrics = {f"top_{k}": float(np.mean(own < k)) for k in (1, 5)} | {"mean_per_class": 0.1}
        result = Result("zeroshot_classification", "title", metrics, {}, outcomes=outcomes)
        report_result(result, "pets", run, tmp_path / run / "evaluation" / "zero_shot-pets.json")
    return [str(tmp_path / run) for run in "abc"]


def test_runs_stand_side_by_side_with_the_interval_of_their_difference(runs):
    found = compare(runs[:2])
    top_1, top_5, per_class = found["tasks"]["zero_shot:pets"]
    assert (top_1["metric"], top_1["values"]) == ("top_1", pytest.approx([0.05, 0.1]))
    assert top_5["values"] == pytest.approx([0.25, 0.5])
    [(difference, low, high)] = top_5["differences"]
    # The second run is right on every query where the first is, so only the other 25 % vary.
    half = 1.96 * np.sqrt(0.25 * 0.75 / 200)
    assert (difference, low, high) == pytest.approx((0.25, 0.25 - half, 0.25 + half), abs=0.01)
    for (low, high), value in zip(top_5["intervals"], top_5["values"], strict=True):
        assert low < value < high
    assert "intervals" not in per_class  # the metric is not a mean over queries
    printed = format_comparison(found)
    assert f"A: {runs[0]}" in printed
    assert "+25.0% [+" in printed and "%]*" in printed
    assert compare([runs[0], runs[0]])["tasks"]["zero_shot:pets"][0]["differences"] == [(0, 0, 0)]


def test_other_queries_have_no_difference(runs):
    found = compare([runs[0], runs[2]])
    assert "differences" not in found["tasks"]["zero_shot:pets"][0]
    assert len(found["tasks"]["zero_shot:pets"][0]["intervals"]) == 2
    assert found["notes"] == ["zero_shot:pets: the runs answered different queries: no differences"]


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="only one run is given"):
        compare(runs[:1])
    with pytest.raises(MissingInputError, match="nowhere: no such folder"):
        compare([runs[0], "nowhere"])
    with pytest.raises(InputError, match="empty: no result of an evaluation"):
        compare([runs[0], str(tmp_path / "empty")])
    (tmp_path / "b/evaluation/zero_shot-pets.json").rename(tmp_path / "b/evaluation/knn-pets.json")
    with pytest.raises(InputError, match=r"no task has results from all.*b: knn:pets"):
        compare(runs[:2])
    (tmp_path / "a/evaluation/zero_shot-pets.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="zero_shot-pets.npz: damaged; evaluate again"):
        compare(runs[:2])
