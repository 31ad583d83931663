"""The comparison of runs, which reads only their files."""

import json

import pytest
from experiments import CLASSIFICATION, PRETRAINING

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation.metrics import RECALLS
from align_keras.runs import listing


def write_run(run, settings, *lines):
    run.mkdir(parents=True)
    (run / "settings.json").write_text(settings.as_json())
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def held_out(step, recall):
    return {"kind": "eval", "step": step, **dict.fromkeys(RECALLS, recall)}


def words_of(line):
    return " ".join(line.split())


@pytest.fixture
def runs(tmp_path):
    quick = PRETRAINING["quickstart"]
    write_run(
        tmp_path / "a",
        quick,
        *({"kind": "train", "step": 20 * n, "pairs_per_second": 100.0 * n} for n in (1, 2, 3)),
        held_out(20, 0.3),
        held_out(60, 0.2) | {"zero_shot_top_1": 0.5},
    )
    write_run(tmp_path / "group" / "b", quick.replace(batch_size=64, workdir="/elsewhere"))
    # The run is of a version that had fewer settings.
    before = json.loads((tmp_path / "a" / "settings.json").read_text())
    del before["experiment"], before["license"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "settings.json").write_text(json.dumps(before))
    (tmp_path / "no_run").mkdir()
    return tmp_path


def test_figures_steps_and_what_differs(runs):
    a, c, b = found = listing.list_runs([str(runs)])
    assert [run.path for run in found] == [str(runs / name) for name in ("a", "c", "group/b")]
    assert (a.experiment, c.experiment) == ("quickstart", "")
    assert (a.steps, a.total_steps, b.steps, a.per_second) == (60, 1_300, 0, 200.0)
    assert a.newest["mean_recall"] == pytest.approx(0.2)
    assert (a.best["mean_recall"], a.best["step"]) == (pytest.approx(0.3), 20)
    assert listing.differing(found) == [{"batch_size": n} for n in (128, 128, 64)]
    head, first, *_ = lines = listing.format_runs(found).splitlines()
    assert words_of(head) == (
        "run experiment steps mean recall i2t R@1 t2i R@1 zero-shot best per second"
    )
    shown = f"{runs / 'a'} quickstart 60 of 1,300 20.0% 20.0% 20.0% 50.0% 30.0% at 20 200"
    assert words_of(first) == shown
    assert lines[-1] == f"{runs / 'group' / 'b'}: batch_size=64"
    assert json.loads(listing.as_json(found))[0]["settings"]["steps"] == 1_300


def test_a_classifier_has_both_phases_and_its_last_result(tmp_path):
    run = tmp_path / "birds"
    write_run(run, CLASSIFICATION["small_set"].replace(model="m", task="birds"))
    (run / "train_images.json").write_text('{"images": 90, "classes": ["a", "b"]}')
    for phase, step in (("head", 300), ("full", 50)):
        (run / phase).mkdir()
        line = {"kind": "train", "step": step, "images_per_second": 7.5}
        (run / phase / "log.jsonl").write_text(json.dumps(line) + "\n")
    for kind, top in (("frozen", 0.5), ("finetuned", 0.75)):
        (run / f"{kind}-birds.json").write_text(json.dumps({"metrics": {"acc1": top}}))
    (found,) = listing.list_runs([str(run)])
    assert (found.steps, found.total_steps, found.newest) == (350, 900, {"top_1": 0.75})
    head, shown = listing.format_runs([found]).splitlines()
    assert words_of(head) == "run experiment steps top-1 per second"
    assert words_of(shown) == f"{run} small_set 350 of 900 75.0% 7.5"


def test_what_is_no_run_is_named(runs):
    with pytest.raises(MissingInputError, match="nowhere: no such folder"):
        listing.list_runs([str(runs), "nowhere"])
    with pytest.raises(InputError, match=r"no_run: no run in the folder; give runs/"):
        listing.list_runs([str(runs / "no_run")])
    (runs / "c" / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json: damaged"):
        listing.list_runs([str(runs)])
