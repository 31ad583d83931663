"""A pretraining run, from shards to a report: its files, resuming, and faults."""

import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from short_runs import settings_of as short_settings
from tracker_module import TrackerModule

from align_keras import uploads
from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.remote_path import RemotePath
from align_keras.runs import pretraining, pretraining_evaluation
from align_keras.runs.command import one_line
from align_keras.runs.log import DivergedError, TrainingLog
from align_keras.runs.log_lines import read_log
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain
from align_keras.runs.verifying import verify

pytestmark = pytest.mark.usefixtures("tiny_preset")


def settings_of(*arguments, **options):
    """Settings of a run that can be made longer, since its learning rate is constant."""
    return short_settings(*arguments, **{"schedule": "constant", **options})


@pytest.fixture(scope="module")
def finished(tiny_preset, scene_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    module, evaluate = pretraining_evaluation, pretraining_evaluation.evaluate_held_out
    wandb = TrackerModule("wandb")
    with (
        mock.patch.object(module, "evaluate_held_out", side_effect=evaluate) as evaluated,
        mock.patch.dict(sys.modules, {"wandb": wandb}),
    ):
        metrics = pretrain(settings_of(scene_shards, workdir, tracker="wandb"))
    tracked = [(step, kept.get("train/loss")) for step, kept in wandb.logged]
    assert tracked == [(line["step"], line.get("loss")) for line in read_log(workdir)]
    assert (wandb.given["config"]["batch_size"], wandb.ended) == (40, [0])
    # The run is evaluated after the last step, and not again for the report.
    assert evaluated.call_count == 1
    return workdir, metrics


def test_a_run_leaves_what_the_readme_names(finished):
    workdir, metrics = finished
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
    (evaluated,) = [line for line in read_log(workdir) if line["kind"] == "eval"]
    assert evaluated["i2t_recall_at_10"] == metrics["i2t_recall_at_10"]
    names = [f"{way}_recall_at_{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    for name in [*names, "zero_shot_top_1", "zero_shot_unseen_top_1"]:
        assert 0.0 <= metrics[name] <= 1.0, name
    assert metrics["num_pairs"] == 30
    assert metrics["num_classes"] > 5
    assert metrics["train_pairs_per_second"] > 0
    assert metrics["seconds"] > 0
    for name in ("curves.png", "retrieval.png", "vocab.txt", "settings.json", "log.jsonl"):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / "logs").glob("events.out.tfevents.*"))
    for folder in ("newest", "best"):
        assert list((workdir / "checkpoints" / folder).glob("ckpt-*.index"))
    assert not list(workdir.rglob("*partial*"))
    card = (workdir / "preset" / "README.md").read_text()
    assert f"| image to text R@10 | {metrics['i2t_recall_at_10']:.1%} |" in card
    assert "4 steps of 40 pairs, 1.33 epochs" in card
    assert "**No licence is set.**" in card


def test_tensorboard_has_the_training_and_held_out_curves(finished):
    tags = set()
    for path in (finished[0] / "logs").glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags.update(value.tag for value in event.summary.value)
    for name in ("loss", "i2t_recall_at_1", "temperature", "gradient_norm", "pairs_per_second"):
        assert f"train/{name}" in tags
    assert {"eval/i2t_recall_at_1", "eval/zero_shot_top_1"} <= tags


def test_steps_taken_several_at_a_time_end_in_the_same_weights(finished, scene_shards, tmp_path):
    options = {"steps_per_execution": 2, "log_every": 2, "profile": "3:3"}
    metrics = pretrain(settings_of(scene_shards, tmp_path / "run", **options))
    expected, found = newest_weights(finished[0]), newest_weights(tmp_path / "run")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    assert metrics["i2t_recall_at_10"] == finished[1]["i2t_recall_at_10"]
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    each = [line["loss"] for line in read_log(finished[0]) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [2, 4]
    np.testing.assert_allclose(
        [line["loss"] for line in lines], np.mean(np.reshape(each, [2, 2]), 1), rtol=1e-6
    )
    assert list((tmp_path / "run").glob("logs/plugins/profile/*/*.xplane.pb"))


def newest_weights(workdir):
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints" / "newest"))
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        # Clocks differ between runs, and the object graph is text.
        if not name.startswith(("seconds", "timed_pairs", "_CHECKPOINTABLE", "save_counter"))
    }


def copy_as_of_step_2(finished, workdir):
    """Copies the run as if it had been killed at step 3, after the checkpoint of step 2."""
    shutil.copytree(finished, workdir)
    newest = workdir / "checkpoints" / "newest"
    for path in (*newest.glob("ckpt-4.*"), workdir / "metrics.json"):
        path.unlink()
    (newest / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    shutil.rmtree(workdir / "checkpoints" / "best")
    lines = (workdir / "log.jsonl").read_text().splitlines(keepends=True)
    (workdir / "log.jsonl").write_text("".join(lines[:3]) + '{"step": 4, "ki')


def test_a_run_with_torn_files_resumes_to_the_same_weights_and_may_be_made_longer(
    finished, scene_shards, tmp_path, capsys
):
    """It resumes at the newest intact checkpoint, and it began with half the steps."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    before = json.loads((workdir / "settings.json").read_text())
    (workdir / "settings.json").write_text(json.dumps(before | {"steps": 2}))
    for path in (*workdir.glob("checkpoints/*/ckpt-4.data-*"), workdir / "log.jsonl"):
        path.write_bytes(path.read_bytes()[:-9])
    metrics = pretrain(settings_of(scene_shards, workdir))
    printed = capsys.readouterr().out
    assert printed.count("/ckpt-4 is damaged (") == 2
    assert "skipped 1 of 8 lines" in printed
    assert metrics["resumed_at_step"] == 2
    expected, resumed = newest_weights(finished[0]), newest_weights(workdir)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    for line, other in zip(read_log(finished[0]), read_log(workdir), strict=True):
        assert line.get("loss") == other.get("loss")


def put(folder, address):
    """Copies a local folder to a remote file system of TensorFlow."""
    for path in folder.rglob("*"):
        target = RemotePath(f"{address}/{path.relative_to(folder)}")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            uploads.put(path, target)


def test_a_run_on_a_file_system_of_tensorflows_resumes_to_the_same_weights(
    finished, scene_shards, tmp_path, capsys
):
    """Its shards are remote too, and a checkpoint there is incomplete."""
    copy_as_of_step_2(finished[0], tmp_path / "before")
    settings = json.loads((tmp_path / "before" / "settings.json").read_text())
    settings["train_data"] = "ram://bucket/shards/train-*"
    (tmp_path / "before" / "settings.json").write_text(json.dumps(settings))
    put(tmp_path / "before", "ram://bucket/run")
    put(Path(scene_shards[0][0]).parent, "ram://bucket/shards")
    half = finished[0] / "checkpoints" / "newest" / "ckpt-4.data-00000-of-00001"
    newest = RemotePath("ram://bucket/run/checkpoints/newest")
    uploads.put(half, newest / half.name)
    shards = (["ram://bucket/shards/train-*"], ["ram://bucket/shards/eval-*"])
    metrics = pretrain(settings_of(shards, "ram://bucket/run"))
    assert "resuming ram://bucket/run at step 2 of 4" in capsys.readouterr().out
    assert metrics["resumed_at_step"] == 2
    after = RemotePath("ram://bucket/run")
    uploads.fetched(after, tmp_path / "after", uploads.files_below(after))
    local, remote = newest_weights(finished[0]), newest_weights(tmp_path / "after")
    assert local.keys() == remote.keys()
    for name, value in local.items():
        np.testing.assert_array_equal(remote[name], value, err_msg=name)
    for line, other in zip(read_log(finished[0]), read_log(after), strict=True):
        assert line.get("loss") == other.get("loss")
    # The other files are the same, with no lock and no partial file.
    left = [
        {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        for run in (finished[0], tmp_path / "after")
    ]
    assert {name for name in left[0] ^ left[1] if not name.startswith("logs/")} == set()
    found = verify("ram://bucket/run/")
    assert sorted(own.kind for own in found) == ["checkpoint"] * 3 + ["preset", "run"]
    assert not any(own.faults for own in found)
    one, other = (load_model(str(run)) for run in (finished[0], after))
    np.testing.assert_array_equal(
        one.encode_texts(["a red ring"]), other.encode_texts(["a red ring"])
    )


def test_a_finished_run_reports_again_without_training(finished, scene_shards, capsys):
    workdir, metrics = finished
    card = workdir / "preset" / "README.md"
    card.write_text("My own words.")
    again = pretrain(settings_of(scene_shards, workdir, license="mit"), "the command")
    assert (workdir / "preset" / "README.before.md").read_text() == "My own words."
    assert "license: mit" in card.read_text() and "the command" in card.read_text()
    assert not any(own.faults for own in verify(str(workdir)))
    assert again["i2t_recall_at_10"] == metrics["i2t_recall_at_10"]
    assert again["train_pairs_per_second"] == metrics["train_pairs_per_second"]
    assert "resuming" in capsys.readouterr().out


def test_other_settings_and_other_shards_do_not_resume(finished, scene_shards):
    for options in ({"steps": 3}, {"steps": 5, "schedule": "linear"}):
        with pytest.raises(InputError, match="the run in .* began with ") as raised:
            pretrain(settings_of(scene_shards, finished[0], **options))
        assert raised.value.setting in options
    workdir, _ = finished
    with pytest.raises(InputError, match="the run in .* began with 40, not 20") as raised:
        pretrain(settings_of(scene_shards, workdir, batch_size=20))
    assert raised.value.setting == "batch_size"
    shards = workdir / "train_shards.json"
    before = shards.read_text()
    assert len(json.loads(before)["shards"]) == 12
    shards.write_text(before.replace("train-00003", "train-00333"))
    with pytest.raises(InputError, match=r"train-00003\.tfrecord is new since") as raised:
        pretrain(settings_of(scene_shards, workdir))
    assert raised.value.setting == "train_data"
    shards.write_text(before)


def test_a_run_that_diverges_stops_and_resumes_tamed(finished, scene_shards, tmp_path, monkeypatch):
    def poison(log, batch, logs=None):
        if log.step == 2:
            log.model.log_temperature.assign(float("nan"))

    workdir = tmp_path / "run"
    copy_as_of_step_2(finished[0], workdir)
    # A resumed run may change these settings to stay stable.
    settings = settings_of(scene_shards, workdir, learning_rate=1e-4, global_clipnorm=1.0)
    monkeypatch.setattr(TrainingLog, "on_train_batch_begin", poison)
    with pytest.raises(DivergedError) as raised:
        pretrain(settings)
    error = raised.value
    assert (error.steps, error.metric) == ((3, 3), "loss")
    assert np.isnan(error.value)
    assert one_line(error) == (
        "the run diverged: loss is nan at step 3; lower --learning-rate or set --global-clipnorm, "
        "and give the command again: it resumes at the last checkpoint"
    )
    # The poisoned weights were not saved, so the same command can continue.
    assert "NaN" not in (workdir / "log.jsonl").read_text()
    names = {path.stem for path in (workdir / "checkpoints").glob("*/*.index")}
    assert names == {"ckpt-2"}


def test_data_without_a_readable_image_end_in_one_line(scene_shards, tmp_path, monkeypatch):
    with ShardWriter(str(tmp_path / "bad"), 100) as writer:
        for index in range(40):
            writer.write(records.make_record(b"no image", "a caption of words", str(index)))
    # Only draws a batch, since training would first trace a step.
    monkeypatch.setattr(pretraining, "train", lambda model, dataset, *_: next(iter(dataset)))
    with pytest.raises(InputError) as raised:
        pretrain(settings_of((writer.shards, scene_shards[1]), tmp_path / "run"))
    assert one_line(raised.value) == (
        f"--train-data: no pair of an entire batch is readable; files: {writer.shards[0]}; "
        "check the shards with recipes/inspect_data.py; the same command resumes at step 0"
    )


def test_a_run_trains_in_bfloat16_with_what_settings_choose(scene_shards, tmp_path):
    """test_retrieval_finetuning.py tests float16, micro-batches and rematerialization."""
    settings = settings_of(
        scene_shards,
        tmp_path / "run",
        steps=3,
        eval_data="",
        precision="mixed_bfloat16",
        optimizer="adafactor",
        loss_tile_rows=16,
        exclude_from_decay=("embedding",),
        global_clipnorm=1.0,
        schedule="linear",
    )
    metrics = pretrain(settings)
    # The run has no held-out pairs.
    assert metrics["num_pairs"] == 0
    assert metrics["i2t_recall_at_1"] is None
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    # The loss of an untrained model: two softmaxes over 40 pairs.
    assert all(5.0 < line["loss"] < 12.0 for line in lines)
    assert keras.config.dtype_policy().name == "float32"
    assert [line["step"] for line in lines] == [1, 2, 3]
    # The rate falls only if steps are applied, so not all were skipped.
    assert lines[-1]["learning_rate"] < lines[0]["learning_rate"]
