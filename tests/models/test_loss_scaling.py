import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import Lamb
from align_keras.models import precision
from align_keras.optimizers.averaging import averaged_weights
from align_keras.optimizers.named import make_optimizer

TOO_LARGE = 2.0**60


def half_and_full(build_tiny, **options):
    """The same model in float16 and in float32."""
    full = build_tiny()
    with precision.dtype_policy("mixed_float16"):
        half = build_tiny()
    for variable, source in zip(half.variables, full.variables, strict=True):
        variable.assign(source.numpy())
    for model in (half, full):
        model.compile(Lamb(0.01), **options)
        model.optimizer.build(model.trainable_variables)
    return half, full


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 4, "rematerialize": True}])
def test_scaled_gradients_are_those_of_float32(options, build_tiny, batch):
    half, full = half_and_full(build_tiny, **options)
    half.optimizer.dynamic_scale.assign(64.0)  # the default 2**15 is too large for these weights
    batch = {name: tf.constant(value) for name, value in batch.items()}
    (losses, gradients), (expected, wanted_gradients) = (
        tf.function(model.compute_gradients, autograph=False)(batch) for model in (half, full)
    )
    assert float(losses["loss"]) == pytest.approx(float(expected["loss"]), rel=2e-3)
    norm = float(tf.linalg.global_norm(wanted_gradients))
    difference = [g - w for g, w in zip(gradients, wanted_gradients, strict=True)]
    assert float(tf.linalg.global_norm(difference)) < 0.02 * norm


def test_without_the_scale_small_gradients_vanish(build_tiny, batch):
    """The reason for the scaling: float16 cannot represent the gradients of so small a loss."""
    half, _ = half_and_full(build_tiny)
    vanished = []
    for scale in (1.0, 2.0**15):
        half.optimizer.dynamic_scale.assign(scale * 1e-6)
        _, gradients = half.compute_gradients(batch)
        vanished.append(sum(int(tf.math.count_nonzero(gradient == 0.0)) for gradient in gradients))
    assert vanished[0] > 1.5 * vanished[1]


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(build_tiny, batch):
    half, _ = half_and_full(build_tiny, global_clipnorm=1.0)
    half.optimizer.dynamic_scale.assign(TOO_LARGE)
    before = [variable.numpy() for variable in half.trainable_variables]
    logs = half.train_step(batch)
    assert float(half.optimizer.dynamic_scale) == TOO_LARGE / 2
    assert int(half.optimizer.iterations) == 0
    for variable, value in zip(half.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    # The logs must not look as if the run diverged.
    assert all(np.isfinite(value) for value in logs.values())
    half.optimizer.dynamic_scale.assign(2.0**10)
    logs = half.train_step(batch)
    assert int(half.optimizer.iterations) == 1
    assert float(logs["gradient_norm"]) > 0.0
    assert np.abs(half.trainable_variables[0].numpy() - before[0]).max() > 0.0


def test_two_replicas_skip_and_take_the_same_steps(build_tiny, batch, mirrored):
    with mirrored.scope(), precision.dtype_policy("mixed_float16"):
        model = build_tiny()
        model.compile(Lamb(0.01))
        model.optimizer.build(model.trainable_variables)
    shares = mirrored.experimental_distribute_values_from_function(
        lambda context: {
            name: tf.constant(np.split(value, 2)[context.replica_id_in_sync_group])
            for name, value in batch.items()
        }
    )
    step = tf.function(lambda: mirrored.run(model.train_step, args=(shares,)), autograph=False)
    weight = model.trainable_variables[0]
    start = weight.numpy()
    for scale, moves in ((TOO_LARGE, False), (2.0**10, True)):
        model.optimizer.dynamic_scale.assign(scale)
        step()
        first, second = mirrored.experimental_local_results(weight.value)
        np.testing.assert_array_equal(first, second)
        assert np.any(first.numpy() != start) == moves


def test_a_loaded_model_keeps_its_scale(build_tiny, batch, preprocessor, tmp_path):
    with precision.dtype_policy("mixed_float16"):
        model = build_tiny()
    model.compile(make_optimizer("lamb", 0.01, model.trainable_variables, ema_momentum=0.5))
    model.train_step(batch)
    model.optimizer.dynamic_scale.assign(64.0)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert float(copy.optimizer.dynamic_scale) == 64.0
    with averaged_weights(model), averaged_weights(copy):
        for variable, wanted in zip(copy.variables, model.variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), wanted.numpy())


def test_an_optimizer_that_clips_is_refused_under_the_scale(build_tiny):
    with precision.dtype_policy("mixed_float16"):
        model = build_tiny()
    with pytest.raises(ValueError, match="give global_clipnorm to compile"):
        model.compile(keras.optimizers.SGD(global_clipnorm=1.0))
