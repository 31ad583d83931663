"""Local stores of MLflow and Weights & Biases, if these are installed.

``make test-data`` installs both.
"""

import json

import pytest

from align_keras.runs import trackers

SETTINGS = {"steps": 3, "prompts": ("{}", "a {}"), "head.steps": 1}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def track_and_resume(name, workdir):
    """Tracks the steps of two processes; the second process repeats a step."""
    for steps in ((1, 2), (2, 3)):
        with trackers.tracking(name, workdir, SETTINGS) as track:
            for step in steps:
                track(step, "train", {"loss": 3.0 - step})
                track(step, "eval", {"i2t_recall_at_1": step / 10, "zero_shot_top_1": None})
    return json.loads((workdir / "trackers.json").read_text())[name]


@pytest.mark.filterwarnings("default")
def test_mlflow_has_lines_settings_and_one_run(workdir, capsys):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is in .venv-data only")
    number = track_and_resume("mlflow", workdir)
    assert "failed" not in capsys.readouterr().err
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("align-keras")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name) == (number, "photos")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "3", "prompts": "('{}', 'a {}')", "head.steps": "1"}
    history = client.get_metric_history(number, "train/loss")
    assert [(own.step, own.value) for own in history] == [(1, 2.0), (2, 1.0), (2, 1.0), (3, 0.0)]
    assert run.data.metrics["eval/i2t_recall_at_1"] == 0.3


@pytest.mark.filterwarnings("default")
def test_wandb_keeps_one_run_offline(workdir, capfd):
    pytest.importorskip("wandb", reason="wandb is in .venv-data only")
    number = track_and_resume("wandb", workdir)
    assert "failed" not in capfd.readouterr().err
    assert list((workdir / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))
