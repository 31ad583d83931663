"""How training ends when a signal asks the process, or another worker, to stop."""

import contextlib
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import Lamb, signals
from align_keras.data.batches import SkippedRecords
from align_keras.errors import InputError
from align_keras.runs import training
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.log import STOP_REQUESTED, TrainingLog
from align_keras.runs.log_lines import lacks_evaluation, read_log
from align_keras.runs.skipped import SkippedInRun
from align_keras.runs.workdir import how_to_resume


class Run:
    """A run of six steps, with a model of one layer."""

    def __init__(self, workdir):
        model = keras.Sequential([keras.layers.Dense(1)])
        model.build((None, 1))
        model.compile(Lamb(0.01), "mse", run_eagerly=True)
        self.workdir = workdir
        self.checkpoints = RunCheckpoints(workdir / "checkpoints", model)
        self.checkpoints.restore()
        self.log = TrainingLog(
            workdir,
            self.checkpoints,
            6,
            1,
            5,
            SkippedInRun(workdir, SkippedRecords().take, 0.01, 1_000, 1, self.checkpoints.step),
        )
        self.model = model

    def train(self, *actions):
        dataset = tf.data.Dataset.from_tensors((np.ones((1, 1)), np.ones((1, 1)))).repeat()
        with signals.handled("x.py"):
            training.train(self.model, dataset, self.log, list(actions), "")

    def outcome(self):
        return how_to_resume("a", self.workdir)


def tell():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_training_after_the_step_under_way_with_a_checkpoint(tmp_path):
    run, done = Run(tmp_path), []
    with pytest.raises(signals.Interrupted):
        run.train((2, tell), (2, lambda: done.append(run.log.step)))
    assert done == [2]  # the other action of the step was also called
    assert run.outcome() == "the same command with <workdir>=a resumes at step 2"
    # The line has the metrics since the previous one, which a resumed run would lack.
    assert [line["step"] for line in read_log(tmp_path)] == [2]
    resumed = Run(tmp_path)
    assert resumed.log.step == 2
    np.testing.assert_array_equal(resumed.model.get_weights()[0], run.model.get_weights()[0])


def test_an_evaluation_that_a_signal_ends_is_repeated(tmp_path):
    run = Run(tmp_path)

    def evaluate():
        if run.log.step == 4:
            with signals.interruptible():
                tell()
        run.log.write("eval", {"recall": 0.5})

    with pytest.raises(signals.Interrupted):
        run.train((2, evaluate))
    log = Run(tmp_path).log
    assert log.step == 4
    assert lacks_evaluation(tmp_path, 4, 2, 6)
    assert lacks_evaluation(tmp_path, 4, 3, 4)
    assert not lacks_evaluation(tmp_path, 4, 3, 6)
    assert not lacks_evaluation(tmp_path, 2, 2, 6)
    log.write("eval", {"recall": 0.5})
    assert not lacks_evaluation(tmp_path, 4, 2, 6)


def test_a_signal_after_the_first_step_of_a_process_keeps_that_step(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(signals.Interrupted):
        run.train((1, tell), (1, run.log.save))
    assert run.outcome() == "the same command with <workdir>=a resumes at step 1"
    resumed = Run(tmp_path)
    resumed.checkpoints.count_steps(2)
    resumed.checkpoints.save_if_best(0.5)
    assert run.outcome().endswith("resumes at step 2")
    assert Run(tmp_path).log.step == 2


def test_training_that_ends_early_is_no_success(tmp_path):
    def fail():
        raise tf.errors.OutOfRangeError(None, None, "a file would be too large")

    with (
        pytest.warns(UserWarning, match="Your input ran out of data"),
        pytest.raises(InputError, match="training ended at step 2 of 6"),
    ):
        Run(tmp_path).train((2, fail))


def test_before_the_first_step_there_is_nothing_to_keep(tmp_path, monkeypatch):
    run = Run(tmp_path)
    assert not lacks_evaluation(tmp_path, 0, 2, 6)
    monkeypatch.setattr(run.model, "train_step", lambda _: tell())
    with pytest.raises(signals.Interrupted):
        run.train()
    assert (
        run.outcome() == "there is no checkpoint yet, so the same command starts from the beginning"
    )


def test_a_worker_ends_after_the_step_in_which_another_was_signalled(tmp_path):
    with contextlib.ExitStack() as deferred:
        stop = training.StopOnSignal(Run(tmp_path).log, 2, deferred)
        # Results are read two executions later, when the device has finished them.
        for batch, number in enumerate((0.0, 0.5, 0.5)):
            stop.on_train_batch_end(batch, {STOP_REQUESTED: [number]})
        with pytest.raises(signals.Interrupted, match="another worker was asked to stop") as raised:
            stop.on_train_batch_end(3, {STOP_REQUESTED: [0.5]})
    assert raised.value.exit_code == 143
