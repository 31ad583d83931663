"""Trackers get the settings and every line of the log; their failures never end a run."""

import importlib.util
import json
import sys

import pytest
from short_runs import settings_of
from tracker_module import TrackerModule

from align_keras.errors import InputError
from align_keras.runs import inputs, trackers


@pytest.fixture(params=["wandb", "trackio"])
def stand_in(request, monkeypatch):
    module = TrackerModule(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    for name in ("WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return module


def track(stand_in, workdir, lines, is_chief=True):
    name = stand_in.__name__
    with trackers.tracking(f"tensorboard,{name}", workdir, {"steps": 5}, is_chief) as tracked:
        for step, kind, metrics in lines:
            tracked(step, kind, metrics)


def test_a_run_that_resumes_goes_on_in_the_same_one(stand_in, tmp_path):
    track(stand_in, tmp_path, [(1, "train", {"loss": 2.0}), (1, "eval", {"top": 0.5, "no": None})])
    steps, metrics = zip(*stand_in.logged, strict=True)
    assert steps == (1, 1)
    assert metrics[0]["train/loss"] == 2.0
    assert metrics[1]["eval/top"] == 0.5 and "eval/no" not in metrics[1]
    first = stand_in.given
    assert (first["project"], first["config"]) == ("align-keras", {"steps": 5})
    assert json.loads((tmp_path / "trackers.json").read_text()) == {stand_in.__name__: stand_in.id}
    track(stand_in, tmp_path, [(2, "train", {"loss": 1.0})])
    key = "id" if stand_in.__name__ == "wandb" else "name"
    assert stand_in.given[key] == first[key]
    assert stand_in.given["resume"] == "allow"
    assert len(stand_in.ended) == 2


def test_a_failure_is_one_line_and_ends_nothing(stand_in, tmp_path, capsys, monkeypatch):
    stand_in.fails_at = 1
    track(stand_in, tmp_path, [(step, "train", {"loss": 1.0}) for step in range(5)])
    name = stand_in.__name__
    assert capsys.readouterr().err == (
        f"{name} failed, and the run continues without it: the server is gone\n"
    )
    assert len(stand_in.logged) == 1 and not stand_in.ended

    def refuse(*_, **__):
        raise ValueError

    monkeypatch.setattr(stand_in, "init", refuse)
    track(stand_in, tmp_path, [(1, "train", {})])
    assert (
        capsys.readouterr().err == f"{name} failed, and the run continues without it: ValueError\n"
    )


def test_other_workers_track_nothing_and_errors_are_told(stand_in, tmp_path):
    track(stand_in, tmp_path, [(1, "train", {"loss": 1.0})], is_chief=False)
    assert not stand_in.given and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), trackers.tracking("wandb,trackio", tmp_path, {}):
        raise KeyboardInterrupt
    assert stand_in.ended in ([1], [None])


def test_what_is_not_installed_is_named_before_tensorflow_loads(
    scene_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = settings_of(scene_shards, tmp_path, tracker="tensorboard, mlflow")
    with pytest.raises(InputError, match=r"mlflow is not installed; pip install 'align-keras\[ml"):
        inputs.check_pretraining(settings)
