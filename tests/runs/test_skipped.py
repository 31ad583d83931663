"""How a run counts and reports lost training data."""

import collections
import itertools
import json

import pytest

from align_keras.data.batches import SkippedRecords
from align_keras.errors import InputError, Place
from align_keras.runs.command import one_line
from align_keras.runs.skipped import LostDataError, SkippedInRun, check_finished, skipped_before


def in_run(workdir, skipped=None, step=0, limit=0.01, **options):
    """A run with batches of 10 pairs and epochs of 1,000 pairs."""
    taken = (skipped or SkippedRecords()).take
    return SkippedInRun(workdir, taken, limit, 1_000, 10, step, **options)


def test_a_run_stops_once_an_epoch_has_lost_more_than_its_share(tmp_path):
    skipped = SkippedRecords()
    run = in_run(tmp_path, skipped)
    skipped.add(0, [b"a"] * 6 + [b""] * 4)
    skipped.add(1, [b"a"] * 2 + [b"b"] * 2)
    run.check(1, True, False)
    assert run.count == 6  # the second batch is prepared, but no step has used it
    run.check(2, True, False)
    assert run.count == 10
    skipped.add(2, [b"c"])
    with pytest.raises(LostDataError) as raised:
        run.check(3, True, False)
    assert one_line(raised.value) == (
        "--train-data: 11 of 1,000 pairs were skipped (1.10%), more than 1.00%: a (8), b (2), "
        "c (1); write those files again or raise --max-skipped-share; the same command resumes at "
        "step 3"
    )


def test_what_was_reported_once_does_not_stop_the_run_again(tmp_path):
    skipped = SkippedRecords()
    run = in_run(tmp_path, skipped)
    skipped.add(0, [b"a"] * 11)
    with pytest.raises(LostDataError):
        run.check(1, True, False)
    run.keep(1)
    resumed = in_run(tmp_path, step=1)
    resumed.check(2, True, False)
    assert resumed.count == 11
    # At the last step, the limit applies to the whole run.
    with pytest.raises(LostDataError, match=r"11 of 1,000 pairs were skipped \(1.10%\)"):
        resumed.check(100, True, True)
    resumed.keep(100)
    with pytest.raises(LostDataError, match=r"11 of 1,000 pairs .* raise max_skipped_share"):
        check_finished(tmp_path, 100, 0.01, 10)
    check_finished(tmp_path, 100, 0.02, 10)
    in_run(tmp_path, step=99, limit=0.02).check(100, True, True)


def test_an_epoch_does_not_answer_for_the_one_before(tmp_path):
    skipped = SkippedRecords()
    run = in_run(tmp_path, skipped)
    for batch in (98, 99, 100, 101):
        skipped.add(batch, [b"a"] * 5)
        run.check(batch + 1, True, False)
    assert run.count == 20
    # It is a larger fraction of the run's 1,100 pairs.
    with pytest.raises(LostDataError, match=r"20 of 1,100 pairs were skipped \(1.82%\)"):
        run.check(110, True, True)


def test_the_count_survives_resuming_at_any_checkpoint(tmp_path):
    skipped = SkippedRecords()
    run = in_run(tmp_path, skipped, limit=0.1)
    for batch in range(6):
        skipped.add(batch, [b"a"])
        run.check(batch + 1, True, False)
        run.keep(batch + 1)
    for step in (3, 6):
        assert skipped_before(tmp_path, step) == step
    again = SkippedRecords()
    resumed = in_run(tmp_path, again, step=3, limit=0.1)
    again.add(3, [b"a"] * 2)
    resumed.check(4, True, False)
    resumed.keep(4)
    # Counts of later steps are removed, since they belong to an abandoned history.
    assert json.loads((tmp_path / "skipped.json").read_text()).keys() == {"1", "2", "3", "4"}
    assert skipped_before(tmp_path, 4) == resumed.count == 5


def test_a_run_that_skips_nothing_leaves_no_file(tmp_path):
    run = in_run(tmp_path)
    run.check(1, True, True)
    run.keep(1)
    assert not list(tmp_path.iterdir())
    assert skipped_before(tmp_path, 1) == 0


def test_a_damaged_count_is_one_line(tmp_path):
    (tmp_path / "skipped.json").write_text('{"1": {"skipped_pairs": "many"}}')
    with pytest.raises(InputError, match=r"skipped.json: it is damaged; restore it, or delete"):
        in_run(tmp_path)


def test_a_changed_file_stops_the_run_and_is_named(tmp_path):
    changes = {}
    run = in_run(tmp_path, look=lambda most: changes)
    run.check(1, True, False)
    changes["a.tfrecord"] = "is gone"
    with pytest.raises(LostDataError) as raised:
        run.check(2, True, False, saved_step=1)
    assert raised.value.weights_are_sound
    changes["a.tfrecord"] = "was written again"
    with pytest.raises(LostDataError, match="resumes at step 1") as replaced:
        run.check(2, True, False, saved_step=1)
    assert not replaced.value.weights_are_sound
    changes["a.tfrecord"] = "is gone"
    assert raised.value.place == Place("a.tfrecord")
    assert one_line(raised.value) == (
        "--train-data: a.tfrecord: is gone since the run opened it; restore it as it was; the "
        "same command resumes at step 2"
    )
    changes["b.tfrecord"] = "is a folder"
    with pytest.raises(LostDataError, match=r"opened it \(and 1 more have changed\)"):
        run.check_files(1)


def test_several_workers_judge_together(tmp_path, monkeypatch):
    """Simulates the exchange with another worker."""
    from align_keras import distribution

    strategy = collections.namedtuple("Strategy", "num_replicas_in_sync")(4)
    monkeypatch.setattr(distribution, "worker_place", lambda _: (0, 2))
    others = itertools.cycle([8, 0, 0])  # pairs skipped, files changed, files replaced
    monkeypatch.setattr(distribution, "gather_from_workers", lambda _, own: [own, next(others)])
    skipped = SkippedRecords()
    run = in_run(tmp_path, skipped, strategy=strategy)
    skipped.add(3, [b"a"] * 3)  # in the second step, on this worker's two replicas
    run.check(1, True, False)
    assert run.count == 8
    with pytest.raises(LostDataError, match="11 of 1,000 pairs"):
        run.check(2, True, False)
