import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import Lamb, WarmupLinearDecay
from align_keras.data.batches import SkippedRecords
from align_keras.errors import InputError
from align_keras.models import precision
from align_keras.runs import training
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.log import TrainingLog
from align_keras.runs.log_lines import read_log
from align_keras.runs.skipped import SkippedInRun


def make_run(build_tiny, directory, **options):
    model = build_tiny(dropout=0.5, **options)
    model.compile(Lamb(WarmupLinearDecay(0.02, 2, 20), use_ema=True))
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
    checkpoints.save()
    with next(tmp_path.glob("newest/ckpt-6.data-*")).open("r+b") as file:
        file.truncate(5_000)
    keras.utils.set_random_seed(99)
    resumed, resumed_checkpoints = make_run(build_tiny, tmp_path)
    assert resumed_checkpoints.restore() == 3
    train(resumed, batch, 3)
    assert resumed_checkpoints.step == 6
    for variable, wanted in zip(resumed.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), err_msg=wanted.path)
    # These include the averages of weights and of batch-norm statistics.
    for variable, wanted in zip(
        resumed.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), err_msg=wanted.path)


def test_without_a_checkpoint_the_run_begins(build_tiny, tmp_path):
    _, checkpoints = make_run(build_tiny, tmp_path)
    assert checkpoints.restore() == 0


def test_the_score_to_be_beaten_is_that_of_the_best_checkpoint(build_tiny, tmp_path):
    """If a run ends right after an evaluation, its newest checkpoint is from before it."""
    _, checkpoints = make_run(build_tiny, tmp_path)
    checkpoints.save()
    assert checkpoints.save_if_best(0.5)
    _, again = make_run(build_tiny, tmp_path)
    again.restore()
    assert not again.save_if_best(0.4)
    assert again.save_if_best(0.6)


def test_only_the_newest_and_the_best_are_kept(build_tiny, tmp_path):
    _, checkpoints = make_run(build_tiny, tmp_path)
    saved = []
    for step, score in enumerate((0.2, 0.5, 0.4), 1):
        checkpoints.count_steps(step)
        saved.append(checkpoints.save_if_best(score))
        checkpoints.save()
    assert saved == [True, True, False]
    names = {
        folder: sorted(path.stem for path in (tmp_path / folder).glob("*.index"))
        for folder in ("newest", "best")
    }
    assert names == {"newest": ["ckpt-2", "ckpt-3"], "best": ["ckpt-2"]}
    _, again = make_run(build_tiny, tmp_path)
    assert again.restore() == 3
    assert not again.save_if_best(0.45)
    assert not again.save_if_best(float("nan"))


def test_a_checkpoint_of_another_model_is_refused(build_tiny, tmp_path):
    make_run(build_tiny, tmp_path)[1].save()
    _, other = make_run(build_tiny, tmp_path, vocabulary_size=77)
    with pytest.raises(InputError, match="not a checkpoint of this model") as raised:
        other.restore()
    assert raised.value.place.file == str(tmp_path / "newest" / "ckpt-0")
    assert "\n" not in str(raised.value)


def test_steps_that_overflow_float16_count_when_a_run_resumes(build_tiny, batch, tmp_path):
    with precision.dtype_policy("mixed_float16"):
        model = build_tiny()
        again = build_tiny()
    for one in (model, again):
        one.compile(keras.optimizers.LossScaleOptimizer(Lamb(0.02), initial_scale=2.0**60))
    checkpoints = RunCheckpoints(tmp_path / "checkpoints", model)
    log = TrainingLog(
        tmp_path,
        checkpoints,
        2,
        8,
        1,
        SkippedInRun(tmp_path, SkippedRecords().take, 0.01, 1_000, 8, 0),
    )
    before = model.get_weights()
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    training.train(model, dataset, log, [(2, checkpoints.save)], "")
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert RunCheckpoints(tmp_path / "checkpoints", again).restore() == 2
    # No step was applied, and nothing was lost: only batch-norm statistics have changed.
    assert int(model.optimizer.iterations.numpy()) == 0
    for variable, value in zip(model.weights, before, strict=True):
        if variable.trainable:
            np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)


def small_run(directory):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 1))
    model.compile(Lamb(0.01))
    return RunCheckpoints(directory, model, max_to_keep=1)


def test_a_directory_whose_name_is_a_pattern_is_that_directory(tmp_path):
    # TensorFlow would find nothing in the first folder, and would remove files of the second.
    folders = [tmp_path / "runs [v2]" / "checkpoints", tmp_path / "runs v" / "checkpoints"]
    for folder in reversed(folders):
        checkpoints = small_run(folder)
        for step in (1, 2):
            checkpoints.count_steps(step)
            checkpoints.save()
        checkpoints.save_if_best(0.5)
    for folder in folders:
        names = sorted(f"{path.parent.name}/{path.stem}" for path in folder.glob("*/*.index"))
        assert names == ["best/ckpt-2", "newest/ckpt-2"]
        assert small_run(folder).restore() == 2
        # As in an earlier version: without checksums, TensorFlow reads the files to find damage.
        (folder / "newest" / "ckpt-2.checksums.json").unlink()
        assert small_run(folder).restore() == 2
