import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import Lamb, WarmupLinearDecay
from align_keras.files import read_json
from align_keras.runs.checkpointing import RunCheckpoints, check_same_shards


def make_run(build_tiny, directory, **options):
    model = build_tiny(dropout=0.5, **options)
    model.compile(Lamb(WarmupLinearDecay(0.02, 2, 20)))
    return model, RunCheckpoints(directory, model, max_to_keep=2)


def train(model, batch, steps):
    model.fit(
        tf.data.Dataset.from_tensors(batch).repeat(),
        steps_per_epoch=steps,
        verbose=0,
        shuffle=False,
    )


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(build_tiny, batch, tmp_path):
    model, checkpoints = make_run(build_tiny, tmp_path)
    train(model, batch, 3)
    checkpoints.save()
    train(model, batch, 3)
    keras.utils.set_random_seed(99)
    resumed, resumed_checkpoints = make_run(build_tiny, tmp_path)
    assert resumed_checkpoints.restore() == 3
    train(resumed, batch, 3)
    assert resumed_checkpoints.step == 6
    for variable, wanted in zip(resumed.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), err_msg=wanted.path)
    for variable, wanted in zip(
        resumed.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), err_msg=wanted.path)


def test_without_a_checkpoint_the_run_begins(build_tiny, tmp_path):
    _, checkpoints = make_run(build_tiny, tmp_path)
    assert checkpoints.restore() == 0


def test_only_the_newest_and_the_best_are_kept(build_tiny, batch, tmp_path):
    model, checkpoints = make_run(build_tiny, tmp_path)
    saved = []
    for score in (0.2, 0.5, 0.4):
        train(model, batch, 1)
        saved.append(checkpoints.save_if_best(score))
        checkpoints.save()
    assert saved == [True, True, False]
    names = {
        folder: sorted(path.stem for path in (tmp_path / folder).glob("*.index"))
        for folder in ("newest", "best")
    }
    assert names == {"newest": ["ckpt-2", "ckpt-3"], "best": ["ckpt-2"]}
    _, again = make_run(build_tiny, tmp_path)
    again.restore()
    assert not again.save_if_best(0.45)
    assert not again.save_if_best(float("nan"))


def test_a_checkpoint_of_another_model_is_refused(build_tiny, batch, tmp_path):
    model, checkpoints = make_run(build_tiny, tmp_path)
    train(model, batch, 1)
    checkpoints.save()
    _, other = make_run(build_tiny, tmp_path, vocabulary_size=77)
    with pytest.raises(ValueError, match="not a checkpoint of this model") as raised:
        other.restore()
    assert "\n" not in json.dumps(str(raised.value))[1:-1].replace("\\n", "\n")


def test_a_run_goes_on_with_the_same_shards_alone(tmp_path):
    path = tmp_path / "train_shards.json"
    check_same_shards(path, {"d/a.tfrecord": 10, "d/b.tfrecord": 20})
    check_same_shards(path, {"moved/b.tfrecord": 20, "moved/a.tfrecord": 10})
    for counts, difference in (
        ({"d/a.tfrecord": 10}, "b.tfrecord is gone"),
        ({"d/a.tfrecord": 10, "d/b.tfrecord": 20, "d/c.tfrecord": 5}, "c.tfrecord is new"),
        ({"d/a.tfrecord": 9, "d/b.tfrecord": 20}, "a.tfrecord holds 9 records, not 10,"),
        ({"2/a.tfrecord": 10, "1/b.tfrecord": 20}, "the shards have changed places"),
    ):
        with pytest.raises(ValueError, match=f"--train-data: {difference} since") as raised:
            check_same_shards(path, counts)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", '{"steps": 1', "[1, 2]"])
def test_a_damaged_file_of_a_run_is_named(text, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json: damaged; restore it, or give another"):
        read_json(path, dict)
