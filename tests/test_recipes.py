import csv
import dataclasses
import json
import os
import runpy
import subprocess
import sys
import zipfile

import keras
import numpy as np
import prepare_data
import pretrain
import pytest
import tensorflow as tf
from conftest import ROOT, SHARED, free_ports
from experiments import EXPERIMENTS, PretrainSettings
from run_data import with_sizes

from align_keras import distribution, presets
from align_keras.data import records
from align_keras.monitoring import read_log
from align_keras.reporting import RECALLS

pytestmark = pytest.mark.usefixtures("tiny_preset")


def settings_of(scene_shards, workdir, **options):
    """Four steps of a model of two layers, for a test that uses ``tiny_preset``."""
    shards = [",".join(paths) for paths in scene_shards]
    options = {
        "train_data": shards[0],
        "eval_data": shards[1],
        "workdir": str(workdir),
        "preset": "tiny",
        "steps": 4,
        "warmup_steps": 1,
        "batch_size": 40,
        "image_size": 32,
        "resize_size": 36,
        "vocabulary_size": 300,
        "eval_every": 4,
        "checkpoint_every": 2,
        "log_every": 1,
        **options,
    }
    return dataclasses.replace(EXPERIMENTS["quickstart"], **options)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_data": "/none/*.tfrecord"}, "--train-data: no file matches '/none/"),
        ({"eval_data": "/none/*.tfrecord"}, "--eval-data: no file matches '/none/"),
        ({"train_data": ""}, "--eval-data without --train-data"),
        ({"batch_size": 121}, "--batch-size: 121 is more than the 120 pairs"),
        ({"strategy": "tpu"}, "--strategy=tpu: no TPU answers"),
        ({"vocabulary": "/none/vocab.txt"}, "--vocabulary: no file /none/vocab.txt"),
        ({"preset": "align_b99"}, "--preset: no 'align_b99'; choose one of align_b3_mini"),
        ({"prompts": ("a photo",)}, "--prompts: no {} for the class name"),
        ({"prompts": ()}, "--prompts: give at least one"),
        (
            {"warmup_steps": 9},
            "--warmup-steps: 9 is above 3; lower --warmup-steps to 3 or less, or raise --steps",
        ),
        ({"steps": 0}, "--(steps|warmup-steps): "),
        ({"batch_size": 0}, "--batch-size: 0 is below 2; raise --batch-size to 2 or more$"),
        ({"resize_size": 31}, "--resize-size: 31 is below 32; .*, or lower --image-size"),
        ({"seed": -1}, "--seed: -1 is below 0"),
        ({"seed": 1 << 32}, "--seed: 4294967296 is above 4294967295"),
        ({"label_smoothing": 5.0}, "--label-smoothing: 5.0 is above 1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate: nan is below 0"),
        ({"initial_temperature": 0.001}, "--initial-temperature: 0.001 is below 0.005"),
        ({"zero_shot_data": "/none/*"}, "--zero-shot-data: no file matches"),
        ({"micro_batch_size": 7}, "--micro-batch-size: 7 does not divide the 40 pairs"),
        ({"loss_tile_rows": -1}, "--loss-tile-rows: -1 is below 0"),
    ],
)
def test_bad_settings_are_one_clear_line(options, message, scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", **options)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        pretrain.main(settings)
    assert "\n" not in str(raised.value)
    # The mended command is not refused as another run's.
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_workdir_that_is_no_directory_is_refused(scene_shards, tmp_path):
    (tmp_path / "file").touch()
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="--workdir: .*/file is a file; give a directory"):
            pretrain.main(settings_of(scene_shards, workdir))


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


def test_zero_shot_data_without_classes_are_refused(scene_shards, tmp_path):
    with records.ShardWriter(str(tmp_path / "plain"), 100) as writer:
        pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
        writer.write(records.make_record(pair["jpg"], "a caption", "k"))
    settings = settings_of(scene_shards, tmp_path / "run", zero_shot_data=writer.shards[0])
    message = "--zero-shot-data: its records have no two values of class_name; "
    with pytest.raises(ValueError, match=message):
        pretrain.main(settings)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_flags_override_the_experiment():
    flags = ["--batch-size=32", "--experiment=cc3m_b3_mini", "--no-mask-false-negatives"]
    settings = pretrain.parse_settings([*flags, "--train-data=x"])
    expected = dataclasses.replace(
        EXPERIMENTS["cc3m_b3_mini"], batch_size=32, mask_false_negatives=False, train_data="x"
    )
    assert settings == expected
    assert pretrain.parse_settings(["--experiment", "quickstart"]) == EXPERIMENTS["quickstart"]
    with pytest.raises(ValueError, match="--experiment: no 'b99'; choose one of quickstart"):
        pretrain.parse_settings(["--experiment=b99"])
    with pytest.raises(ValueError, match="--experiment=cc3m_b3_mini: give --train-data; only"):
        pretrain.parse_settings(flags)


def test_experiments_name_presets_and_keep_the_papers_constants():
    sizes = presets.PRESETS.keys() - {"tiny"}
    assert {settings.preset for settings in EXPERIMENTS.values()} == sizes
    assert EXPERIMENTS["align_l2_large"] == PretrainSettings(preset="align_l2_large")
    paper = with_sizes(EXPERIMENTS["align_l2_large"])
    facts = {
        "optimizer": "lamb",
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "warmup_steps": 10_000,
        "steps": 1_200_000,
        "batch_size": 16_384,
        "label_smoothing": 0.1,
        "initial_temperature": 1.0,
        "resize_size": 346,
        "image_size": 289,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    }
    assert {name: getattr(paper, name) for name in facts} == facts


def users_environment(**variables):
    """As a user has it: the tests set TensorFlow's log level for themselves."""
    environment = {**os.environ, **variables}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return environment


def run_recipe(name, *arguments):
    return subprocess.run(
        [sys.executable, f"recipes/{name}", *arguments],
        cwd=ROOT,
        env=users_environment(PYTHONWARNINGS=""),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("recipe", ["pretrain.py", "prepare_data.py"])
def test_help_explains_the_flags(recipe):
    result = run_recipe(recipe, "--help")
    assert result.returncode == 0
    flags = {"pretrain.py": ["--batch-size", "--strategy"], "prepare_data.py": ["--captions"]}
    for flag in flags[recipe]:
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (
            "pretrain.py",
            ["--train-data=/none/x-*"],
            "pretrain.py: --train-data: no file matches",
        ),
        (
            "prepare_data.py",
            ["--captions=/none/x.csv", "--output=/none/y"],
            "prepare_data.py: --captions: no file /none/x.csv",
        ),
    ],
)
def test_bad_input_ends_without_a_stack_trace(recipe, arguments, message, tmp_path):
    result = run_recipe(recipe, *arguments)
    assert result.returncode == 1
    # Nothing of TensorFlow's stands around it either.
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(message)


def test_a_packed_folder_is_trained_on(scene_shards, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "kind"])
        for shard in scene_shards[0][:4]:
            for record in records.read_frames(shard):
                pair = records.parse_pair(record)
                name = pair["key"].decode() + ".jpg"
                (folder / name).write_bytes(pair["jpg"])
                writer.writerow([name, pair["txt"].decode(), pair["class_name"].decode()])
    output = tmp_path / "shards" / "train"
    prepare_data.main(
        prepare_data.PrepareSettings(
            captions=str(folder / "table.csv"), output=str(output), carry=("class_name=kind",)
        )
    )
    pattern = [f"{output}-*.tfrecord"]
    metrics = pretrain.main(
        settings_of((pattern, pattern), tmp_path / "run", steps=1, warmup_steps=0)
    )
    assert metrics["num_pairs"] == 40
    assert metrics["num_classes"] > 10
    assert metrics["zero_shot_top_1"] is not None
    assert metrics["zero_shot_unseen_top_1"] is None


@pytest.mark.parametrize(
    "options",
    [
        {
            "precision": "mixed_bfloat16",
            "optimizer": "adafactor",
            "micro_batch_size": 10,
            "loss_tile_rows": 16,
        },
        {
            # The tiny size's gradients overflow for more than four steps.
            "preset": "align_nano_tiny",
            "precision": "mixed_float16",
            "optimizer": "lamb",
            "exclude_from_decay": ("embedding",),
            "exclude_from_adaptation": ("projection",),
            "global_clipnorm": 1.0,
            "rematerialize": True,
            "ema_momentum": 0.5,
        },
    ],
)
def test_the_recipe_runs_with_what_large_batches_take(options, scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", **options)
    metrics = pretrain.main(settings)
    assert metrics["num_pairs"] == 30
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    # Two softmaxes over 40 pairs, before anything is learnt.
    assert all(5.0 < line["loss"] < 12.0 for line in lines)
    assert keras.config.dtype_policy().name == "float32"
    assert ("loss_scale" in lines[0]) == (settings.precision == "mixed_float16")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    # Steps were taken, not all skipped.
    assert lines[-1]["learning_rate"] < lines[0]["learning_rate"]
    # A finished run reports the same once more, of the averaged weights where there are such.
    again = pretrain.main(settings)
    for name in RECALLS:
        assert again[name] == metrics[name]


def test_steps_that_overflow_float16_count_when_a_run_resumes(scene_shards, tmp_path, monkeypatch):
    scale = keras.optimizers.LossScaleOptimizer.__init__

    def too_large(self, inner_optimizer, initial_scale=2.0**60, **options):
        scale(self, inner_optimizer, initial_scale, **options)

    monkeypatch.setattr(keras.optimizers.LossScaleOptimizer, "__init__", too_large)
    settings = settings_of(
        scene_shards, tmp_path / "run", steps=2, precision="mixed_float16", ema_momentum=0.5
    )
    metrics = pretrain.main(settings)
    assert pretrain.main(settings)["resumed_at_step"] == 2
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2]
    # Nothing was learnt, and nothing lost: the weights are those of the start.
    assert metrics["t2i_recall_at_10"] > 0.0


def test_exclusions_and_averages_are_checked_before_a_run(scene_shards, tmp_path):
    for options, message in (
        ({"exclude_from_decay": ("embedd",), "optimizer": "sgd"}, None),
        ({"exclude_from_adaptation": ("x",), "optimizer": "sgd"}, "sgd has no layer adaptation"),
        ({"exclude_from_decay": ("nothing",)}, "'nothing' matches the path of no variable"),
        ({"ema_momentum": 1.0}, "--ema-momentum: 1.0 is above 0.999999; lower"),
    ):
        settings = settings_of(scene_shards, tmp_path / "run", **options)
        if message is None:
            settings.check()
            continue
        with pytest.raises(ValueError, match=message):
            pretrain.main(settings)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_two_replicas_run_the_recipe_and_resume(scene_shards, tmp_path, mirrored, monkeypatch):
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
    metrics = pretrain.main(settings_of(scene_shards, tmp_path / "run"))
    assert metrics["num_pairs"] == 30
    lines = read_log(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4]
    again = pretrain.main(settings_of(scene_shards, tmp_path / "run"))
    for name in RECALLS:
        assert again[name] == metrics[name]
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


def test_packed_photographs_are_trained_on(tmp_path):
    source = SHARED / "data" / "captions" / "coco_mini"
    if not source.exists():
        pytest.skip(f"no shared data at {source}; a rendered folder is packed above")
    output = tmp_path / "coco" / "test"
    settings = prepare_data.PrepareSettings(
        captions=str(source / "pairs.jsonl"), output=str(output), select=("split=test",)
    )
    prepare_data.main(settings)
    shards = records.find_shards(f"{output}-*.tfrecord")
    assert sum(records.count_records(shard) for shard in shards) == 895
    assert not list(output.parent.glob("*left_out*"))
    assert not list(output.parent.glob("*unfinished*"))
    with zipfile.ZipFile(source / "images-00.zip") as archive:
        pair = records.parse_pair(next(records.read_frames(shards[0])))
        name = pair["image_id"].decode().removeprefix("images-00.zip/")
        assert pair["jpg"] == archive.read(name)
    metrics = pretrain.main(
        settings_of(
            ([f"{output}-*.tfrecord"], [f"{output}-*.tfrecord"]),
            tmp_path / "run",
            steps=1,
            warmup_steps=0,
        )
    )
    assert metrics["num_pairs"] == 895
    assert metrics["zero_shot_top_1"] is None
    with pytest.raises(ValueError, match="--output: .*test-00000.tfrecord is there already"):
        prepare_data.main(settings)


def test_prepare_data_counts_what_it_leaves_out(tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"image": "no.jpg", "caption": "x"}\n[1]\n')
    settings = prepare_data.PrepareSettings(
        captions=str(tmp_path / "t.jsonl"), output=str(tmp_path / "out" / "train")
    )
    with pytest.raises(ValueError, match="no pair of .* could be packed"):
        prepare_data.main(settings)
    printed = capsys.readouterr().out
    assert "left out 1: image file missing" in printed
    assert "left out 1: not a JSON object" in printed
    lines = (tmp_path / "out" / "train-left_out.jsonl").read_text().splitlines()
    assert {json.loads(line)["where"] for line in lines} == {"line 1", "line 2"}
    with pytest.raises(ValueError, match="--select: 'split' must be COLUMN=VALUE"):
        prepare_data.main(dataclasses.replace(settings, output="x", select=("split",)))


def test_a_packing_of_nothing_can_be_mended(scene_shards, tmp_path):
    pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg", "caption": "x", "kind": null}\n')
    settings = prepare_data.PrepareSettings(
        captions=str(tmp_path / "t.jsonl"), output=str(tmp_path / "out" / "train")
    )
    with pytest.raises(ValueError, match="no pair of .* could be packed"):
        prepare_data.main(settings)
    with pytest.raises(ValueError, match=r"--carry: no row of .*t\.jsonl has a column kind$"):
        prepare_data.main(dataclasses.replace(settings, carry=("class_name=kind",)))
    (tmp_path / "a.jpg").write_bytes(pair["jpg"])
    prepare_data.main(settings)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    shard = ["train-00000.tfrecord", "train-00000_stats.json"]
    assert names == [*shard, "train-report.html", "train-report.json"]


def test_an_interrupted_packing_says_so_in_one_line(monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["prepare_data.py", "--captions=a.csv", "--output=b"])
    monkeypatch.setattr("align_keras.data.packing.read_table", interrupt)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "prepare_data.py"), run_name="__main__")
    assert stopped.value.code.startswith("prepare_data.py: interrupted; ")
