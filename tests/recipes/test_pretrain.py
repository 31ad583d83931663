"""Pretraining, from shards to a report: what a run leaves, resumes, survives and shares out."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pretrain
import pytest
import tensorflow as tf
from conftest import ROOT, free_ports
from short_runs import settings_of, users_environment

from align_keras import distribution
from align_keras.data import records
from align_keras.runs.monitoring import read_log

pytestmark = pytest.mark.usefixtures("tiny_preset")


def newest_weights(workdir):
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints" / "newest"))
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        # Clocks, and the object graph, which is text.
        if not name.startswith(("seconds", "timed_pairs", "_CHECKPOINTABLE", "save_counter"))
    }


@pytest.fixture(scope="module")
def finished_run(tiny_preset, scene_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    metrics = pretrain.main(settings_of(scene_shards, workdir))
    return workdir, metrics


def test_a_run_leaves_what_the_readme_names(finished_run):
    workdir, metrics = finished_run
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
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


def test_tensorboard_has_the_training_and_held_out_curves(finished_run):
    tags = set()
    for path in (finished_run[0] / "logs").glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags.update(value.tag for value in event.summary.value)
    for name in ("loss", "i2t_recall_at_1", "temperature", "gradient_norm", "pairs_per_second"):
        assert f"train/{name}" in tags
    assert {"eval/i2t_recall_at_1", "eval/zero_shot_top_1"} <= tags


def test_an_interrupted_run_resumes_to_the_same_weights(
    finished_run, scene_shards, tmp_path, monkeypatch
):
    settings = settings_of(scene_shards, tmp_path / "run")

    class StopError(Exception):
        pass

    def stop(log, batch, logs=None):
        on_batch_end(log, batch, logs)
        if log.step == 3:
            raise StopError

    on_batch_end = pretrain.monitoring.TrainingLog.on_train_batch_end
    monkeypatch.setattr(pretrain.monitoring.TrainingLog, "on_train_batch_end", stop)
    with pytest.raises(StopError):
        pretrain.main(settings)
    monkeypatch.undo()
    pretrain.main(settings)
    expected, resumed = newest_weights(finished_run[0]), newest_weights(tmp_path / "run")
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_a_finished_run_reports_again_without_training(finished_run, scene_shards, capsys):
    workdir, metrics = finished_run
    again = pretrain.main(settings_of(scene_shards, workdir))
    assert again["i2t_recall_at_10"] == metrics["i2t_recall_at_10"]
    assert again["train_pairs_per_second"] == metrics["train_pairs_per_second"]
    assert "resuming" in capsys.readouterr().out


def test_other_settings_do_not_resume(finished_run, scene_shards):
    with pytest.raises(ValueError, match="--batch-size: the run in .* began with 40, not 20"):
        pretrain.main(settings_of(scene_shards, finished_run[0], batch_size=20))


def test_other_shards_do_not_resume(finished_run, scene_shards):
    workdir, _ = finished_run
    shards = workdir / "train_shards.json"
    before = shards.read_text()
    assert len(json.loads(before)) == 12
    shards.write_text(before.replace("train-00003", "train-00333"))
    with pytest.raises(ValueError, match="--train-data: train-00003.tfrecord is new since"):
        pretrain.main(settings_of(scene_shards, workdir))
    shards.write_text(before)


def test_a_run_that_diverges_stops_and_resumes_tamed(scene_shards, tmp_path, monkeypatch):
    def poison(log, batch, logs=None):
        if log.step == 2:
            log.model.log_temperature.assign(float("nan"))

    settings = settings_of(scene_shards, tmp_path / "run")
    monkeypatch.setattr(pretrain.monitoring.TrainingLog, "on_train_batch_begin", poison)
    monkeypatch.setattr(pretrain.monitoring.TrainingLog, "_start", 0.0, raising=False)
    message = "the run diverged: loss is nan at step 3; lower --learning-rate or set "
    with pytest.raises(FloatingPointError, match=message) as raised:
        pretrain.main(settings)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()
    names = {path.stem for path in (tmp_path / "run" / "checkpoints").glob("*/*.index")}
    assert names == {"ckpt-2"}
    settings = dataclasses.replace(settings, learning_rate=1e-4, global_clipnorm=1.0)
    metrics = pretrain.main(settings)
    assert metrics["resumed_at_step"] == 2


def test_data_without_a_readable_image_ends_in_one_line(scene_shards, tmp_path):
    with records.ShardWriter(str(tmp_path / "bad"), 100) as writer:
        for index in range(40):
            writer.write(records.make_record(b"no image", "a caption of words", str(index)))
    settings = settings_of((writer.shards, scene_shards[1]), tmp_path / "run")
    with pytest.raises(tf.errors.OpError) as raised:
        pretrain.main(settings)
    assert pretrain.one_line(raised.value) == (
        "--train-data: no pair of a whole batch is readable; look into the shards"
    )


def test_the_recipe_runs_in_bfloat16_with_what_flags_choose(scene_shards, tmp_path):
    """Float16, micro-batches and rematerialization are run where retrieval is fine-tuned."""
    settings = settings_of(
        scene_shards,
        tmp_path / "run",
        steps=3,
        precision="mixed_bfloat16",
        optimizer="adafactor",
        loss_tile_rows=16,
        exclude_from_decay=("embedding",),
        global_clipnorm=1.0,
    )
    metrics = pretrain.main(settings)
    assert metrics["num_pairs"] == 30
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    # Two softmaxes over 40 pairs, before anything is learnt.
    assert all(5.0 < line["loss"] < 12.0 for line in lines)
    assert keras.config.dtype_policy().name == "float32"
    assert [line["step"] for line in lines] == [1, 2, 3]
    # Steps were taken, not all skipped.
    assert lines[-1]["learning_rate"] < lines[0]["learning_rate"]


def test_steps_that_overflow_float16_count_when_a_run_resumes(scene_shards, tmp_path, monkeypatch):
    scale = keras.optimizers.LossScaleOptimizer.__init__

    def too_large(self, inner_optimizer, initial_scale=2.0**60, **options):
        scale(self, inner_optimizer, initial_scale, **options)

    monkeypatch.setattr(keras.optimizers.LossScaleOptimizer, "__init__", too_large)
    settings = settings_of(
        scene_shards,
        tmp_path / "run",
        steps=2,
        precision="mixed_float16",
        optimizer="lamb",
        exclude_from_adaptation=("projection",),
        ema_momentum=0.5,
    )
    metrics = pretrain.main(settings)
    assert pretrain.main(settings)["resumed_at_step"] == 2
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2]
    # Nothing was learnt, and nothing lost: the weights are those of the start.
    assert metrics["t2i_recall_at_10"] > 0.0


def test_a_batch_that_does_not_divide_among_replicas_is_refused(
    scene_shards, tmp_path, mirrored, monkeypatch
):
    """Two replicas run the recipe where retrieval is fine-tuned."""
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
    with pytest.raises(ValueError, match="--batch-size: 39 pairs do not divide among 2 replicas"):
        pretrain.main(settings_of(scene_shards, tmp_path / "other", batch_size=39))


def run_two_workers(settings):
    """Runs the recipe in two processes: their exit statuses and what they print."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    names = ("train_data", "eval_data", "workdir", "steps", "warmup_steps", "batch_size")
    names += ("image_size", "resize_size", "vocabulary_size", "eval_every", "log_every")
    flags = [f"--{name.replace('_', '-')}={getattr(settings, name)}" for name in names]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "recipes/pretrain.py", "--strategy=multi_worker", *flags],
                cwd=ROOT,
                env=users_environment(TF_CONFIG=json.dumps(task)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_two_workers_train_alike(scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", steps=2)
    statuses, outputs = run_two_workers(settings)
    assert statuses == [0, 0], outputs
    first, second = (read_log(tmp_path / "run" / place) for place in ("", "worker-1"))
    assert len(first) == len(second) == 3
    for line, other in zip(first, second, strict=True):
        for name in line.keys() - {"pairs_per_second", "kind"}:
            assert other[name] == pytest.approx(line[name], rel=1e-5), name
