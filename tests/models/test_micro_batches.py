import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build_tiny_model, freeze_batch_norm, make_batch

from align_keras import AlignBackbone, AlignDualEncoder, Lamb
from align_keras.models import micro_batches, precision


def gradients_of(model, batch, **options):
    model.compile(Lamb(1e-3), **options)
    compute = tf.function(model.compute_gradients, autograph=False)
    return compute({name: tf.constant(value) for name, value in batch.items()})


@pytest.fixture(scope="module")
def frozen():
    """A model with frozen batch norm, and the loss and gradients of a whole batch."""
    # Module fixtures run before the fixture that seeds each test.
    keras.utils.set_random_seed(1)
    model = build_tiny_model()
    # Otherwise batch norm would use each micro-batch's statistics.
    freeze_batch_norm(model)
    return model, *gradients_of(model, make_batch())


@pytest.mark.parametrize(("micro_batch_size", "loss_tile_rows"), [(1, 0), (4, 3), (8, 0)])
def test_micro_batches_give_the_gradients_of_the_whole(
    micro_batch_size, loss_tile_rows, frozen, batch
):
    model, results, gradients = frozen
    options = {"micro_batch_size": micro_batch_size, "loss_tile_rows": loss_tile_rows}
    found, found_gradients = gradients_of(model, batch, **options)
    for name, value in results.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    for gradient, wanted in zip(found_gradients, gradients, strict=True):
        assert np.abs(gradient - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


def test_dropout_and_batch_norm_are_replayed(build_tiny, batch):
    """Compared with one tape over all micro-batches, from the same seeds and moving averages."""
    model = build_tiny(dropout=0.5)
    model.compile(Lamb(1e-3), micro_batch_size=2)
    state = model.backbone.non_trainable_variables
    before = [variable.numpy() for variable in state]
    _, found = model.compute_gradients(batch)
    after = [variable.numpy() for variable in state]

    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        parts = [
            model.backbone(
                {name: batch[name][i : i + 2] for name in model.backbone.input}, training=True
            )
            for i in range(0, 8, 2)
        ]
        embeddings = {name: tf.concat([p[name] for p in parts], axis=0) for name in parts[0]}
        loss = model.contrastive_losses(embeddings, batch)["loss"]
    expected = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for gradient, wanted in zip(found, expected, strict=True):
        wanted = tf.convert_to_tensor(wanted)
        assert np.abs(gradient - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())
    # The seeds advanced as in the single pass. The moving averages moved once, by the mean over
    # the micro-batches, but four times in the single pass.
    moved = []
    for variable, value, start in zip(state, after, before, strict=True):
        if "moving_" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), value)
        if np.any(value != start):
            moved.append(variable.path.rpartition("/")[2])
    assert {"moving_mean", "moving_variance", "seed_generator_state"} <= set(moved)


@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_averages_of_batch_norm_move_once_to_the_mean_of_the_parts(
    micro_batch_size, build_tiny, batch
):
    model = build_tiny()
    state = [v for v in model.backbone.non_trainable_variables if "moving_" in v.path]
    start = [variable.numpy() for variable in state]
    expected = [[] for _ in state]
    for i in range(0, 8, micro_batch_size):
        inputs = {name: batch[name][i : i + micro_batch_size] for name in model.backbone.input}
        model.backbone(inputs, training=True)
        for values, variable, value in zip(expected, state, start, strict=True):
            values.append(variable.numpy())
            variable.assign(value)
    model.compile(Lamb(1e-3), micro_batch_size=micro_batch_size)
    model.compute_gradients(batch)
    for variable, values in zip(state, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), np.mean(values, 0), rtol=1e-5, atol=1e-6)


def run_halves(strategy, batch, function):
    """Runs ``function`` on each replica's half of a batch; returns a result per replica."""
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: {
            name: tf.constant(np.split(value, 2)[context.replica_id_in_sync_group])
            for name, value in batch.items()
        }
    )
    return tf.function(lambda: strategy.run(function, args=(shares,)), autograph=False)()


def test_two_replicas_with_micro_batches_and_tiles_give_the_gradients_of_one(
    frozen, build_tiny, mirrored, batch
):
    single, expected, expected_gradients = frozen
    with mirrored.scope():
        double = build_tiny()
        freeze_batch_norm(double)
        double.compile(Lamb(1e-3), micro_batch_size=2, loss_tile_rows=3)
    for variable, source in zip(double.variables, single.variables, strict=True):
        variable.assign(source.numpy())
    results, gradients = run_halves(mirrored, batch, double.compute_gradients)
    for name, value in expected.items():
        mean = mirrored.reduce("MEAN", results[name], axis=None)
        np.testing.assert_allclose(mean, value, rtol=1e-5, err_msg=name)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        for replica in mirrored.experimental_local_results(gradient):
            assert np.abs(replica - wanted).max() < 2e-5 * max(1.0, np.abs(wanted).max())


def test_two_replicas_in_float16_that_keep_little_give_the_gradients_of_one(
    build_tiny, mirrored, batch
):
    """Uses all ways to save memory at once; batch norm sees the same micro-batches in both runs."""

    def build(strategy):
        with strategy.scope(), precision.dtype_policy("mixed_float16"):
            model = build_tiny(synchronized=True)
            model.compile(Lamb(1e-3), micro_batch_size=2, loss_tile_rows=3, rematerialize=True)
            model.optimizer.build(model.trainable_variables)
        model.optimizer.dynamic_scale.assign(64.0)
        return model

    single, double = build(tf.distribute.get_strategy()), build(mirrored)
    for variable, source in zip(double.variables, single.variables, strict=True):
        variable.assign(source.numpy())
    whole = {name: tf.constant(value) for name, value in batch.items()}
    compute = tf.function(single.compute_gradients, autograph=False)
    expected, expected_gradients = compute(whole)
    results, gradients = run_halves(mirrored, batch, double.compute_gradients)
    for name, value in expected.items():
        mean = mirrored.reduce("MEAN", results[name], axis=None)
        np.testing.assert_allclose(mean, value, rtol=1e-4, err_msg=name)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        for replica in mirrored.experimental_local_results(gradient):
            assert np.abs(replica - wanted).max() < 1e-3 * max(1.0, np.abs(wanted).max())
    norm = tf.linalg.global_norm(expected_gradients)
    assert 0.1 < float(norm) < np.inf


def test_a_micro_batch_must_divide_the_batch(build_tiny, batch):
    model = build_tiny()
    inputs = {name: tf.constant(batch[name]) for name in model.backbone.input}
    with pytest.raises(ValueError, match=r"micro_batch_size \(3\) must divide a replica's 8 pairs"):
        micro_batches.embed(model.backbone, inputs, 3)


@pytest.mark.parametrize("options", [{"micro_batch_size": 4}, {"loss_tile_rows": 4}])
def test_batches_of_no_fixed_size_are_reported_how_to_be_made(options, build_tiny, batch):
    model = build_tiny()
    model.compile(Lamb(1e-3), **options)
    inputs = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    with pytest.raises(ValueError, match="must have the same size; batch the .*drop_remainder=Tr"):
        model.fit(inputs, shuffle=False, verbose=0)


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 4}])
def test_a_weight_that_nothing_depends_on_has_no_gradient(options, build_tiny, batch):
    class WithUnused(keras.layers.Layer):
        def build(self, shape):
            self.unused = self.add_weight(shape=(3,), name="unused")

        def call(self, inputs):
            return inputs + 0.0

    text = build_tiny().backbone.text_encoder
    tower = keras.Model(text.input, WithUnused()(text.output))
    model = AlignDualEncoder(AlignBackbone(build_tiny().backbone.image_encoder, tower, 8))
    _, gradients = gradients_of(model, batch, **options)
    zeros = [
        gradient
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if "unused" in variable.path
    ]
    assert len(zeros) == 1
    assert not np.any(zeros[0])
