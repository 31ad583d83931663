"""Compares the moving averages of weights and batch-norm statistics with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from align_keras import AlignDualEncoder
from align_keras.layers.batch_norm import moving_statistics
from align_keras.optimizers.averaging import averaged_weights, update_statistics
from align_keras.optimizers.named import make_optimizer


def test_averaged_weights_are_the_moving_average_and_leave_no_trace(build_tiny, batch, tmp_path):
    model = build_tiny()
    model.compile(make_optimizer("lamb", 0.05, model.trainable_variables, ema_momentum=0.75))
    model.optimizer.build(model.trainable_variables)
    variables = [*model.trainable_variables, *moving_statistics(model)]
    assert len(variables) > len(model.trainable_variables)
    with averaged_weights(model):  # before the first step there is no average
        assert float(model.temperature) == pytest.approx(0.2)
    expected = None
    for _ in range(3):
        model.train_step(batch)
        now = [variable.numpy().astype("float64") for variable in variables]
        pairs = zip(expected or now, now, strict=True)
        expected = [0.75 * average + 0.25 * weight for average, weight in pairs]
    own = [variable.numpy() for variable in variables]
    with averaged_weights(model):
        for variable, wanted in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5, atol=1e-6)
        model.save_to_preset(tmp_path / "preset")
    # The preset has averaged weights with averaged statistics.
    preset = AlignDualEncoder.from_preset(tmp_path / "preset")
    saved = [*preset.trainable_variables, *moving_statistics(preset)]
    for variable, wanted in zip(saved, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5, atol=1e-6)
    for variable, wanted in zip(variables, own, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted)
    for place in (0, -1):
        assert np.abs(own[place] - expected[place]).max() > 1e-3


def test_a_step_that_was_not_taken_moves_no_average_of_statistics(build_tiny, batch):
    """For example, a step whose gradients overflow float16."""
    model = build_tiny()
    model.compile(make_optimizer("sgd", 0.05, model.trainable_variables, ema_momentum=0.75))
    model.train_step(batch)
    averages = [average.numpy() for average in model.optimizer.statistics_averages]
    for variable in moving_statistics(model):
        variable.assign(variable + 1.0)
    update_statistics(model, tf.constant(1))
    for average, before in zip(model.optimizer.statistics_averages, averages, strict=True):
        np.testing.assert_array_equal(average.numpy(), before)
    update_statistics(model, tf.constant(0))  # the first applied step sets the averages
    for average, value in zip(
        model.optimizer.statistics_averages, moving_statistics(model), strict=True
    ):
        np.testing.assert_array_equal(average.numpy(), value.numpy())


def test_no_average_is_kept_unless_asked_for(build_tiny, batch):
    model = build_tiny()
    model.compile(make_optimizer("lamb", 0.05, model.trainable_variables))
    model.train_step(batch)
    before = tf.identity(model.temperature)
    with averaged_weights(model):
        assert float(model.temperature) == float(before)


def test_fit_leaves_a_model_its_own_weights(build_tiny, batch):
    """Keras would replace them by the averages."""
    model = build_tiny()
    model.compile(make_optimizer("sgd", 0.01, model.trainable_variables, ema_momentum=0.9))
    data = tf.data.Dataset.from_tensors(batch)
    model.fit(data.repeat(3), shuffle=False, verbose=0)
    own = model.trainable_variables[0].numpy()
    with averaged_weights(model):
        assert np.abs(model.trainable_variables[0].numpy() - own).max() > 0.0
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), own)
