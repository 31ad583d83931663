"""The number of steps per execution, and the profiled steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from experiments import PRETRAINING

from align_keras import distribution, keras_internals
from align_keras.errors import InputError
from align_keras.runs.executions import Executions, Profiler


def test_on_a_cpu_every_step_is_an_execution_unless_more_are_asked_for():
    strategy = tf.distribute.get_strategy()
    assert Executions().steps([100, 5_000], 0, 60, strategy) == 1
    assert Executions(20).steps([100, 5_000], 0, 60, strategy) == 20
    # The run was stopped between two multiples of 100.
    assert Executions(20).steps([100, 5_000], 30, 5_000, strategy) == 10


def test_elsewhere_it_is_the_most_that_no_line_or_checkpoint_falls_into(monkeypatch):
    monkeypatch.setattr(distribution, "is_on_cpu", lambda _: False)
    assert Executions().steps([100, 5_000, 10_000], 0, 1_200_000, None) == 25
    # After step 45, an execution must again end at step 100.
    assert Executions().steps([100, 5_000], 45, 1_200_000, None) == 5
    assert Executions().steps([1], 0, 100, None) == 1
    assert Executions().steps([64], 0, 640, None) == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steps_per_execution": 3, "log_every": 20},
            "3 does not divide 20; choose a divisor of log_every",
        ),
        ({"profile": "5"}, "'5' is not START:STOP; give the first and the last step"),
        ({"profile": "5:4"}, "'5:4' is not START:STOP"),
        ({"profile": "20:9000"}, "20:9000 ends after the last step, "),
        ({"profile": "0:4"}, "'0:4' is not START:STOP"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(options, message):
    with pytest.raises(InputError, match=message):
        PRETRAINING["quickstart"].replace(**options).check()


def test_a_profile_has_the_steps_that_were_asked_for(tmp_path):
    """The trace names each step that Keras runs."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    dataset = tf.data.Dataset.from_tensors((np.ones((1, 1)), np.ones((1, 1)))).repeat()
    model.fit(dataset, steps_per_epoch=1, verbose=0, shuffle=False)
    folder = tmp_path / "logs"
    profiler = Profiler(3, 4, 1, folder)
    active = []
    observe = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: active.append(profiler.is_active)
    )
    model.fit(dataset, steps_per_epoch=6, verbose=0, shuffle=False, callbacks=[observe, profiler])
    assert active == [False, False, True, True, False, False]
    (trace,) = folder.glob("plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 1_000


def test_replicas_take_several_steps_in_one_execution(mirrored):
    """In Keras's own loop, TensorFlow fails on a placeholder that is never fed."""
    trained = []
    for steps in (1, 3):
        with mirrored.scope():
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
            model.compile("adam", "mse")
            model.optimizer.build(model.trainable_variables)
        model.set_weights([np.ones((3, 2)), np.zeros(2)])
        examples = np.arange(36.0).reshape(6, 2, 3), np.ones((6, 2, 2))
        dataset = tf.data.Dataset.from_tensor_slices(examples)
        iterator = iter(mirrored.experimental_distribute_dataset(dataset))
        execute = keras_internals.train_function_of(model, steps)
        for _ in range(6 // steps):
            results = execute(iterator)
        assert "loss" in results
        assert int(model.optimizer.iterations.numpy()) == 6
        trained.append(model.get_weights())
    for one, several in zip(*trained, strict=True):
        np.testing.assert_allclose(one, several, rtol=1e-6)
    assert not np.allclose(trained[0][0], 1.0)
