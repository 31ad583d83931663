"""MLflow's own local store, where MLflow is installed: ``make test-data``."""

import pytest

from align_keras.runs import trackers

mlflow = pytest.importorskip("mlflow", reason="MLflow is in .venv-data only")


@pytest.mark.filterwarnings("default")
def test_lines_settings_and_the_same_run_after_resuming(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "photos"
    workdir.mkdir()
    settings = {"steps": 3, "prompts": ("{}", "a {}"), "head.steps": 1}
    for steps in ((1, 2), (2, 3)):
        with trackers.tracking("mlflow", workdir, settings) as track:
            for step in steps:
                track(step, "train", {"loss": 3.0 - step})
                track(step, "eval", {"i2t_recall_at_1": step / 10, "zero_shot_top_1": None})
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("align-keras")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("photos", "FINISHED")
    assert run.data.params == {"steps": "3", "prompts": "('{}', 'a {}')", "head.steps": "1"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(own.step, own.value) for own in history] == [(1, 2.0), (2, 1.0), (2, 1.0), (3, 0.0)]
    assert run.data.metrics["eval/i2t_recall_at_1"] == 0.3
