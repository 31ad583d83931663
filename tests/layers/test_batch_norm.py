import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras.layers.batch_norm import FusedBatchNormalization


def pair_of_layers(**options):
    """Keras's layer and the fused one, with the same random weights."""
    layers = [
        kind(momentum=0.8, epsilon=1e-2, **options)
        for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)
    ]
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 2.0, 3) for _ in range(4)]
    for layer in layers:
        layer.build((None, None, None, 3))
        layer.set_weights(weights)
    return layers


def run(layer, inputs, upstream, training):
    """Returns the outputs, the gradients, and the weights after the call."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
    sources = [inputs, layer.gamma.value, layer.beta.value]
    gradients = tape.gradient(outputs, sources, upstream)
    return [outputs, *gradients, *layer.get_weights()]


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 1, 1, 3), (1, 2, 1, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_keras_does(training, shape):
    rng = np.random.default_rng(1)
    inputs = tf.constant(rng.normal(2.0, 3.0, shape), tf.float32)
    upstream = tf.constant(rng.normal(size=shape), tf.float32)
    results = [run(layer, inputs, upstream, training) for layer in pair_of_layers()]
    for found, wanted in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_a_frozen_one_keeps_its_statistics():
    inputs = tf.random.normal([4, 2, 2, 3])
    results = []
    for layer in pair_of_layers():
        layer.trainable = False
        before = layer.get_weights()
        results.append(layer(inputs, training=True))
        for value, start in zip(layer.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, start)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"center": False}, {"scale": False}, {"axis": 1}])
def test_what_the_kernel_cannot_do_is_left_to_keras(options):
    shape = (4, 3, 2, 2) if "axis" in options else (4, 2, 2, 3)
    inputs = tf.random.normal(shape)
    outputs = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(**options)
        outputs.append(layer(inputs, training=True))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_precisions_give_what_keras_gives(policy):
    values = np.random.default_rng(0).normal(30.0, 1.0, (64, 4, 4, 3))
    results = []
    for layer in pair_of_layers(dtype=policy):
        inputs = tf.cast(values, layer.compute_dtype)
        outputs = layer(inputs, training=True)
        assert outputs.dtype == layer.compute_dtype
        results.append([outputs.numpy().astype("float64"), *layer.get_weights()])
    tolerance = {"mixed_bfloat16": 0.05, "mixed_float16": 0.01, "float64": 1e-12}[policy]
    for found, wanted in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("training", [False, True])
def test_columns_at_the_borders_do_not_count(training, dtype, tolerance):
    rng = np.random.default_rng(1)
    inputs = rng.normal(2.0, 3.0, (4, 5, 6, 3)).astype(dtype)
    keras_layer, layer = pair_of_layers(dtype=dtype)
    keras_layer(inputs[:, :, 2:-1], training=training)
    mean, variance = keras_layer.moving_mean.numpy(), keras_layer.moving_variance.numpy()
    if training:
        inner = inputs[:, :, 2:-1].astype("float64")
        mean, variance = inner.mean((0, 1, 2)), inner.var((0, 1, 2))
    wanted = (inputs - mean) / np.sqrt(variance + 1e-2) * layer.gamma.numpy() + layer.beta.numpy()
    found = layer.call_with_borders(tf.constant(inputs), left=2, right=1, training=training)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    for one, other in zip(layer.get_weights(), keras_layer.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_renormalisation_cannot_leave_out_columns():
    layer = FusedBatchNormalization(renorm=True, name="norm")
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="norm has renorm"):
        layer.call_with_borders(tf.zeros([1, 2, 4, 3]), left=1, right=1, training=True)


def test_replicas_share_their_statistics_in_one_sum_each_way(mirrored, monkeypatch):
    rng = np.random.default_rng(1)
    inputs = rng.normal(2.0, 3.0, (6, 2, 3, 3)).astype("float32")
    upstream = rng.normal(size=inputs.shape).astype("float32")
    keras_layer, _ = pair_of_layers()
    wanted = run(keras_layer, tf.constant(inputs), tf.constant(upstream), training=True)
    with mirrored.scope():
        _, layer = pair_of_layers(synchronized=True)
    sums, all_reduce = [], tf.distribute.ReplicaContext.all_reduce
    monkeypatch.setattr(
        tf.distribute.ReplicaContext,
        "all_reduce",
        lambda self, *args, **options: sums.append(1) or all_reduce(self, *args, **options),
    )

    def on_replica(number):
        share = [tf.gather(tf.split(value, 2), number) for value in (inputs, upstream)]
        with tf.GradientTape() as tape:
            tape.watch(share[0])
            outputs = layer(share[0], training=True)
        return [outputs, tape.gradient(outputs, share[0], share[1])]

    numbers = mirrored.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )
    step = tf.function(lambda: mirrored.run(on_replica, (numbers,)), autograph=False)
    found = [mirrored.experimental_local_results(value) for value in step()]
    assert len(sums) == 2 * mirrored.num_replicas_in_sync  # one forward and one for the gradient
    for one, other in zip(found, wanted[:2], strict=True):
        np.testing.assert_allclose(np.concatenate(one), other, rtol=2e-5, atol=2e-5)
    for one, other in zip(layer.get_weights(), wanted[-4:], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
