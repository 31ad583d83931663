import numpy as np
import pytest
import tensorflow as tf

from align_keras import distribution, losses
from align_keras.losses.global_batch import global_losses, repeated_share


def reference(images, texts, temperature, smoothing, excluded):
    """The loss and its gradients in plain float64 NumPy, row by row."""
    n = len(images)
    logits = images @ texts.T / temperature
    loss, d_logits = 0.0, np.zeros_like(logits)
    for scores, mask, gradient in (
        (logits, excluded, d_logits),
        (logits.T, excluded.T, d_logits.T),
    ):
        for i in range(n):
            columns = np.flatnonzero(~mask[i])
            p = np.exp(scores[i, columns] - scores[i, columns].max())
            p /= p.sum()
            target = np.full(len(columns), smoothing / len(columns))
            target[columns == i] += 1 - smoothing
            loss -= np.sum(target * np.log(p)) / n
            gradient[i, columns] += (p - target) / n
    return (
        loss,
        d_logits @ texts / temperature,
        d_logits.T @ images / temperature,
        -np.sum(d_logits * logits) / temperature,
    )


def unit_rows(rng, n, dim):
    x = rng.normal(size=(n, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradients_match_numpy_reference(smoothing, masked):
    rng = np.random.default_rng(3)
    images, texts = unit_rows(rng, 6, 5), unit_rows(rng, 6, 5)
    ids = np.array([0, 4, 4, 0, 9, 4])
    positives = tf.range(6)
    excluded = losses.false_negatives(tf.constant(ids), tf.constant(ids), positives)
    inputs = [tf.Variable(x, dtype=tf.float32) for x in (images, texts, 0.3)]
    with tf.GradientTape() as tape:
        total = 0.0
        for queries, keys in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
            logits = losses.pair_logits(queries, keys, inputs[2])
            rows = losses.softmax_cross_entropy(
                logits, positives, smoothing, excluded if masked else None
            )
            total += tf.reduce_mean(rows)
    mask = excluded.numpy() if masked else np.zeros((6, 6), bool)
    expected = reference(images, texts, 0.3, smoothing, mask)
    np.testing.assert_allclose(total, expected[0], rtol=1e-5)
    for gradient, wanted in zip(tape.gradient(total, inputs), expected[1:], strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_false_negatives_share_an_id_and_are_not_the_own_pair():
    ids = tf.constant([0, 3, 3, 0], tf.int64)
    excluded = losses.false_negatives(ids, ids, tf.range(4)).numpy()
    expected = np.zeros((4, 4), bool)
    expected[1, 2] = expected[2, 1] = True
    np.testing.assert_array_equal(excluded, expected)


def test_false_negatives_keep_the_positive_of_a_later_replica():
    rows = tf.constant([5, 6], tf.int64)
    columns = tf.constant([5, 6, 5, 6], tf.int64)
    excluded = losses.false_negatives(rows, columns, tf.constant([2, 3])).numpy()
    np.testing.assert_array_equal(
        excluded, [[True, False, False, False], [False, True, False, False]]
    )


def test_recall_at_1_counts_ties_as_misses():
    logits = tf.constant([[2.0, 1.0, 0.0], [5.0, 5.0, 0.0], [9.0, 0.0, 1.0]])
    np.testing.assert_array_equal(losses.recall_at_1(logits, tf.range(3)), [1.0, 0.0, 0.0])
    excluded = tf.constant([[False] * 3, [True, False, False], [True, False, False]])
    np.testing.assert_array_equal(
        losses.recall_at_1(logits, tf.range(3), excluded), [1.0, 1.0, 1.0]
    )


@pytest.mark.parametrize(
    ("counts", "form"), [((4, 2), "all_gather"), ((1, 0), "all_gather"), ((1, 0), "all_reduce")]
)
def test_replicas_with_unequal_shares_give_the_loss_and_gradients_of_one_device(
    counts, form, mirrored, monkeypatch
):
    """As in a last batch that cannot be divided evenly; ids are masked across replicas too."""
    monkeypatch.setattr(distribution.replicas, "form_of_gathering", lambda _: form)
    rng = np.random.default_rng(4)
    rows = [tf.constant(unit_rows(rng, 8, 5), tf.float32) for _ in range(2)]
    ids = tf.constant([3, 0, 4, 9, 3, 4, 0, 9], tf.int64)
    kept = np.concatenate([np.arange(4) < count for count in counts])

    def loss_of(images, texts, ids, kept):
        with tf.GradientTape() as tape:
            tape.watch([images, texts])
            # The size of the parts is unknown while tracing.
            parts = [tf.boolean_mask(value, kept) for value in (images, texts, ids)]
            found = global_losses(*parts[:2], 0.2, parts[2:], label_smoothing=0.1)
        return found, tape.gradient(found["loss"], [images, texts])

    expected, gradients = loss_of(
        *(tf.constant(np.asarray(v)[kept]) for v in (*rows, ids)), tf.constant(kept[kept])
    )
    shares = mirrored.experimental_distribute_values_from_function(
        lambda context: [
            tf.constant(np.split(np.asarray(value), 2)[context.replica_id_in_sync_group])
            for value in (*rows, ids, kept)
        ]
    )
    found, parts = tf.function(lambda: mirrored.run(loss_of, args=shares))()
    for name, value in expected.items():
        mean = mirrored.reduce("MEAN", found[name], axis=None)
        np.testing.assert_allclose(mean, value, rtol=1e-5, err_msg=name)
    for part, wanted in zip(parts, gradients, strict=True):
        own = tf.concat(mirrored.experimental_local_results(part), axis=0)
        np.testing.assert_allclose(own[kept] / 2, wanted, rtol=1e-4, atol=1e-6)
        assert not np.any(own[~kept])


def test_repeats_are_counted_over_all_replicas(mirrored):
    rng = np.random.default_rng(0)
    ids = rng.choice(rng.integers(-(2**62), 2**62, 5), 16)
    ids[:4] = 0  # unknown ids, which never count as repeated
    expected = (12 - len(set(ids[4:].tolist()))) / 16
    assert repeated_share(tf.constant(ids)).numpy() == np.float32(expected)
    assert repeated_share(tf.zeros([0], tf.int64)).numpy() == 0.0
    assert repeated_share(tf.range(1, 9, dtype=tf.int64)).numpy() == 0.0

    def share():
        replica, _ = distribution.replica_place()
        return repeated_share(tf.reshape(tf.constant(ids), [2, 8])[replica])

    found = mirrored.experimental_local_results(
        tf.function(lambda: mirrored.run(share), autograph=False)()
    )
    assert [own.numpy() for own in found] == [np.float32(expected)] * 2
