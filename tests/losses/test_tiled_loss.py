import concurrent.futures
import threading

import numpy as np
import pytest
import tensorflow as tf

from align_keras import losses
from align_keras.losses.tiled import tiled_losses


def reference(images, texts, temperature, smoothing, ids):
    """The mean loss over both directions, and its gradients, in float64 NumPy."""
    n = len(images)
    own = np.eye(n, dtype=bool)
    shared = np.zeros((n, n), bool)
    for each in ids:
        shared |= (each[:, None] == each[None, :]) & (each[:, None] != 0)
    part = ~shared | own
    logits = images @ texts.T / temperature
    loss, d_logits = 0.0, np.zeros((n, n))
    for axis in (1, 0):
        kept = np.where(part, logits, -np.inf)
        top = kept.max(axis=axis, keepdims=True)
        total = np.exp(kept - top).sum(axis=axis, keepdims=True)
        log_sum = top + np.log(total)
        target = (1 - smoothing) * own + smoothing * part / part.sum(axis=axis, keepdims=True)
        loss += np.sum(target * np.where(part, log_sum - logits, 0.0)) / n
        d_logits += (np.exp(kept - log_sum) - target) / n
    gradients = d_logits @ texts / temperature, d_logits.T @ images / temperature
    return loss, (*gradients, -np.sum(d_logits * logits) / temperature)


def unit_rows(rng, n, dim):
    x = rng.normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def value_and_gradients(function, arrays):
    inputs = [tf.constant(array, tf.float32) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        loss = tf.reduce_mean(outputs[0]) + tf.reduce_mean(outputs[1])
    return float(loss), tape.gradient(loss, inputs), outputs


def assert_close(found, expected):
    """Compares within 1e-5 of the largest value."""
    expected = np.asarray(expected, "float64")
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("tile_rows", [1, 5, 7, 37, 100])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.02, 0.005])
def test_tiles_give_the_loss_and_gradients_of_numpy(tile_rows, masked, temperature):
    rng = np.random.default_rng(0)
    images, texts = unit_rows(rng, 37, 8), unit_rows(rng, 37, 8)
    ids = (rng.integers(0, 9, 37), rng.integers(0, 30, 37)) if masked else ()
    loss, gradients, _ = value_and_gradients(
        lambda *inputs: tiled_losses(
            *inputs,
            tile_rows=tile_rows,
            label_smoothing=0.1,
            ids=[tf.constant(each) for each in ids],
        ),
        (images, texts, temperature),
    )
    wanted, wanted_gradients = reference(images, texts, temperature, 0.1, ids)
    assert loss == pytest.approx(wanted, rel=1e-5)
    for gradient, expected in zip(gradients, wanted_gradients, strict=True):
        assert_close(gradient, expected)


@pytest.mark.parametrize("temperature", [1.0, 0.005])
def test_columns_are_put_together_over_replicas_whose_logits_lie_far_apart(temperature):
    """One replica's images equal its captions, the other's are opposite: similarities 1 and -1."""
    rng = np.random.default_rng(3)
    texts = unit_rows(rng, 12, 4)
    images = np.concatenate([texts[:6], -texts[6:]])
    halves = [tf.constant(np.split(each, 2), tf.float32) for each in (images, texts)]
    shared, met = [None, None], threading.Barrier(2, timeout=60)

    def exchange(replica, value):
        shared[replica] = value
        met.wait()
        values = list(shared)
        met.wait()
        return values

    def run(replica):
        return tiled_losses(
            *(each[replica] for each in halves),
            temperature,
            tile_rows=4,
            replica=replica,
            replicas=2,
            gather=lambda value: tf.concat(exchange(replica, value), axis=0),
            add=lambda values: [tf.add_n(v) for v in zip(*exchange(replica, values), strict=True)],
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (0, 1))
    wanted = losses.dense_losses(
        tf.constant(images, tf.float32), tf.constant(texts, tf.float32), temperature
    )
    rounding = 4e-7 / temperature  # rounding error of a float32 logit
    for one, other, expected in zip(first, second, wanted, strict=True):
        found = tf.concat([one, other], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=rounding)


def test_tiles_give_each_row_what_the_dense_form_gives():
    rng = np.random.default_rng(1)
    arrays = unit_rows(rng, 30, 4), unit_rows(rng, 30, 4), 0.1
    ids = [tf.constant(rng.integers(0, 9, 30))]
    dense, tiled = (
        value_and_gradients(
            lambda *inputs, form=form, options=options: form(
                *inputs, label_smoothing=0.1, ids=ids, **options
            ),
            arrays,
        )
        for form, options in ((losses.dense_losses, {}), (tiled_losses, {"tile_rows": 7}))
    )
    for found, expected in zip(tiled[2], dense[2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert 0 < np.sum(dense[2][2]) < 30  # only some are retrieved


def test_every_row_has_its_own_weight_in_the_gradient():
    rng = np.random.default_rng(2)
    inputs = [tf.constant(unit_rows(rng, 12, 4), tf.float32) for _ in range(2)]
    weights = tf.constant(rng.uniform(size=(2, 12)), tf.float32)
    gradients = []
    for form, options in ((losses.dense_losses, {}), (tiled_losses, {"tile_rows": 5})):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            i2t, t2i, *_ = form(*inputs, 0.2, label_smoothing=0.1, **options)
            loss = tf.reduce_sum(weights[0] * i2t) + tf.reduce_sum(weights[1] * t2i)
        gradients.append(tape.gradient(loss, inputs))
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert_close(found, expected)


def test_a_tie_and_a_nan_are_no_hits():
    images = texts = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    *_, i2t, t2i = tiled_losses(images, texts, 0.1, tile_rows=2)
    np.testing.assert_array_equal(i2t, [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(t2i, [0.0, 0.0, 1.0])
    *_, i2t, t2i = tiled_losses(images * np.nan, texts, 0.1, tile_rows=2)
    assert not np.any(i2t)
    assert not np.any(t2i)


def test_the_matrix_of_logits_is_never_held():
    """In the graph of a traced step, no tensor has rows x columns elements."""
    spec = tf.TensorSpec([96, 4])

    @tf.function(input_signature=[spec, spec])
    def step(images, texts):
        with tf.GradientTape() as tape:
            tape.watch([images, texts])
            i2t, t2i, *_ = tiled_losses(images, texts, 0.1, tile_rows=8)
            loss = tf.reduce_sum(i2t + t2i)
        return tape.gradient(loss, [images, texts])

    def largest(graph):
        sizes = [
            tensor.shape.num_elements() or 0
            for operation in graph.get_operations()
            for tensor in operation.outputs
        ]
        return max(sizes)

    graph = step.get_concrete_function().graph
    bodies = [graph._get_function(name).graph for name in graph._functions]
    assert bodies
    assert max(map(largest, [graph, *bodies])) == 8 * 96
