"""Faults in a run's data are reported in one line, before anything is written or trained."""

from types import SimpleNamespace

import pytest
import tensorflow as tf
from short_runs import settings_of

from align_keras import distribution, uploads
from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.remote_path import RemotePath
from align_keras.runs import pretraining_data
from align_keras.runs.mixed_sources import TrainingSources
from align_keras.runs.pretraining import open_run, pretrain
from align_keras.runs.pretraining_batches import training_data

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"train_data": "/none/*.tfrecord"}, "train_data", "no file matches '/none/"),
        ({"eval_data": "/none/*.tfrecord"}, "eval_data", "no file matches '/none/"),
        ({"zero_shot_data": "/none/*"}, "zero_shot_data", "no file matches"),
        ({"batch_size": 121}, "batch_size", "121 is more than the 120 training pairs"),
        ({"strategy": "tpu"}, "strategy", "no TPU answers at local"),
        ({"vocabulary": "/none/vocab.txt"}, "vocabulary", "/none/vocab.txt: no such file"),
        ({"micro_batch_size": 7}, "micro_batch_size", "7 does not divide the 40 pairs"),
        ({"steps": 1}, "warmup_steps", "1 is not below 1"),
        ({"model": "/none"}, "model", "/none: no such folder"),
        (
            {"exclude_from_adaptation": ("x",), "optimizer": "sgd"},
            "exclude_from_adaptation",
            "sgd has no layer adaptation",
        ),
        ({"exclude_from_decay": ("nothing",)}, "exclude_from_decay", "'nothing' matches no path"),
    ],
)
def test_bad_settings_are_one_clear_line(options, setting, message, scene_shards, tmp_path):
    settings = settings_of(scene_shards, tmp_path / "run", **options)
    with pytest.raises(InputError, match=message) as raised:
        open_run(settings)
    assert raised.value.setting == setting
    assert "\n" not in str(raised.value)
    # The corrected command is not refused as belonging to another run.
    assert not (tmp_path / "run" / "settings.json").exists()


def test_zero_shot_data_without_classes_are_refused(scene_shards, tmp_path):
    with ShardWriter(str(tmp_path / "plain"), 100) as writer:
        pair = records.parse_pair(next(records.read_frames(scene_shards[0][0])))
        writer.write(records.make_record(pair["jpg"], "a caption", "k"))
    settings = settings_of(scene_shards, tmp_path / "run", zero_shot_data=writer.shards[0])
    with pytest.raises(InputError, match="fewer than two class names") as raised:
        open_run(settings)
    assert raised.value.setting == "zero_shot_data"
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_worker_with_less_than_a_batch_names_the_batch_size(scene_shards, preprocessor, tmp_path):
    def dataset_of_the_second(share_of):
        return share_of(tf.distribute.InputContext(2, 1, 2))

    settings = settings_of(scene_shards, tmp_path / "run", batch_size=16)
    data = SimpleNamespace(
        sources=TrainingSources(["a"], [12]), counts={"a": 9, "b": 3}, preprocessor=preprocessor
    )
    strategy = SimpleNamespace(distribute_datasets_from_function=dataset_of_the_second)
    with pytest.raises(InputError, match="a batch of 8 pairs is more than the 6") as raised:
        training_data(settings, data, strategy, 0)
    assert raised.value.setting == "batch_size"


def test_a_batch_that_does_not_divide_among_replicas_is_refused(
    scene_shards, tmp_path, mirrored, monkeypatch
):
    """test_retrieval_finetuning.py tests a run on two replicas."""
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
    with pytest.raises(InputError, match="39 cannot be divided among 2 replicas") as raised:
        pretrain(settings_of(scene_shards, tmp_path / "other", batch_size=39))
    assert raised.value.setting == "batch_size"


def render(directory, **_):
    for name in ("train-00000.tfrecord", "eval-00000.tfrecord"):
        (directory / name).write_text("scenes")


def test_scenes_are_rendered_whole_and_over_nobodys_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_data.scenes, "write_scenes", render)
    theirs = tmp_path / "data" / "eval-00000.tfrecord"
    theirs.parent.mkdir()
    theirs.write_text("somebody's")
    (theirs.parent / "train-2024-00000.tfrecord").touch()
    with pytest.raises(InputError, match="already exists; remove it, or give another") as raised:
        pretraining_data.quickstart_data(theirs.parent, seed=0)
    assert raised.value.setting == "workdir"
    assert theirs.read_text() == "somebody's"
    theirs.unlink()
    found = pretraining_data.quickstart_data(theirs.parent, seed=0)
    assert found == pretraining_data.quickstart_data(theirs.parent, seed=0)
    names = {"train_data": "train-00000.tfrecord", "eval_data": "eval-00000.tfrecord"}
    assert found == {key: [str(theirs.parent / name)] for key, name in names.items()}


def test_scenes_are_rendered_elsewhere_too_also_after_a_kill(monkeypatch):
    monkeypatch.setattr(pretraining_data.scenes, "write_scenes", render)
    folder, put = RemotePath("ram://scenes/data"), uploads.put
    theirs = folder / "eval-00000.tfrecord"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("somebody's")
    with pytest.raises(InputError, match="already exists; remove it, or give another"):
        pretraining_data.quickstart_data(folder, seed=0)
    theirs.unlink()

    def be_killed(local, target):
        put(local, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(uploads, "put", be_killed)
    with pytest.raises(KeyboardInterrupt):
        pretraining_data.quickstart_data(folder, seed=0)
    monkeypatch.setattr(uploads, "put", put)
    found = pretraining_data.quickstart_data(folder, seed=0)
    assert found["eval_data"] == [str(theirs)]
    ends = ("00000.tfrecord", "checksums.json")
    names = [f"{part}-{end}" for part in ("eval", "train") for end in reversed(ends)]
    assert [path.name for path in folder.iterdir()] == sorted([*names, "finished"])


def test_a_single_pair_is_not_lowered_to(scene_shards, tmp_path):
    pair = next(records.read_frames(scene_shards[0][0]))
    with ShardWriter(str(tmp_path / "one"), 10) as writer:
        writer.write(pair)
    one = str(tmp_path / "one-*.tfrecord")
    settings = settings_of(scene_shards, tmp_path / "run", train_data=one, batch_size=32)
    with pytest.raises(InputError, match="the 1 training pair; training needs at least 2 pairs"):
        open_run(settings)
