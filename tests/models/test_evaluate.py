"""Compares ``evaluate`` with the loss in NumPy, on one device and on two replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from align_keras import AlignImageClassifier, Lamb

SMOOTHING = 0.1


def reference(embeddings, temperature, ids):
    """Loss and recalls of one batch, row by row in float64."""
    count = len(ids[0])
    own = np.arange(count)
    shared = sum((values[:, None] == values) & (values[:, None] != 0) for values in ids) > 0
    kept = ~shared | (own[:, None] == own)
    images, texts = (np.float64(embeddings[f"{kind}_embeddings"]) for kind in ("image", "text"))
    logits = images @ texts.T / temperature
    found = {}
    for name, scores in (("i2t", logits), ("t2i", logits.T)):
        losses, hits = [], []
        for row in own:
            part = scores[row][kept[row]]
            log_sum = np.log(np.sum(np.exp(part - part.max()))) + part.max()
            losses.append(log_sum - (1 - SMOOTHING) * scores[row, row] - SMOOTHING * part.mean())
            hits.append(np.sum(part >= scores[row, row]) == 1)
        found[f"loss_{name}"], found[f"{name}_recall_at_1"] = np.mean(losses), np.mean(hits)
    return {"loss": found["loss_i2t"] + found["loss_t2i"], **found, "temperature": temperature}


def reference_of(model, batch, sizes):
    """The mean over batches of these sizes, weighted by their pairs."""
    total, start = {}, 0
    for size in sizes:
        part = {name: value[start : start + size] for name, value in batch.items()}
        ids = [part["image_ids"], part["caption_ids"]]
        for name, value in reference(model(part), 0.2, ids).items():
            total[name] = total.get(name, 0.0) + value * size
        start += size
    return {name: value / start for name, value in total.items()}


def check(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-5), name


def compiled(model, **options):
    model.compile(Lamb(0.05), label_smoothing=SMOOTHING, **options)
    return model


def copy_weights(source, target):
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value.numpy())


@pytest.mark.parametrize("options", [{}, {"loss_tile_rows": 2}])
def test_evaluate_gives_the_numbers_of_numpy_and_changes_nothing(options, build_tiny, batch):
    """The model has dropout, which must be off; the last batch has three pairs."""
    model = compiled(build_tiny(dropout=0.5), **options)
    before = [variable.numpy() for variable in model.variables]
    expected = reference_of(model, batch, [5, 3])
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(5)
    for _ in range(2):
        check(model.evaluate(dataset, return_dict=True, verbose=0), expected)
    metrics = {id(variable) for variable in model.metrics_variables}
    for variable, value in zip(model.variables, before, strict=True):
        if id(variable) not in metrics:
            np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)


def test_pairs_that_are_not_valid_take_no_part(build_tiny, batch):
    """Such pairs come from ``evaluation_dataset``, which pads its last batch."""
    model = compiled(build_tiny())
    valid = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    kept = {name: value[valid] for name, value in batch.items()}
    batch["images"][~valid] = 0.0
    marked = tf.data.Dataset.from_tensor_slices({**batch, "valid": valid}).batch(8)
    # A batch without valid pairs does not count.
    none = {**batch, "valid": np.zeros(8, bool)}
    marked = marked.concatenate(tf.data.Dataset.from_tensor_slices(none).batch(8))
    found = model.evaluate(marked, return_dict=True, verbose=0)
    check(found, reference_of(model, kept, [6]))


def test_two_replicas_evaluate_and_predict_as_one_device(build_tiny, batch, mirrored):
    """The replicas have two pairs each, two and one, or one and none."""
    single = compiled(build_tiny())
    with mirrored.scope():
        double = compiled(build_tiny())
    copy_weights(single, double)
    parts = [
        tf.data.Dataset.from_tensor_slices(batch).skip(start).take(size).batch(size)
        for start, size in ((0, 4), (4, 3), (7, 1))
    ]
    dataset = parts[0].concatenate(parts[1]).concatenate(parts[2])
    found = double.evaluate(dataset, return_dict=True, verbose=0)
    check(found, reference_of(single, batch, [4, 3, 1]))
    outputs, expected = double.predict(dataset, verbose=0), single(batch)
    for name in ("image_embeddings", "text_embeddings"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
    np.testing.assert_array_equal(outputs["image_ids"], batch["image_ids"])


def test_a_classifier_evaluates_alike_on_one_device_and_two(build_tiny, batch, mirrored):
    labels = np.arange(8) % 3

    def build():
        classifier = AlignImageClassifier(
            build_tiny(dropout=0.5).backbone.image_encoder, ["ring", "cross", "star"]
        )
        classifier.compile(
            "sgd",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return classifier

    single = build()
    with mirrored.scope():
        double = build()
    single.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 3)))
    copy_weights(single, double)
    logits = np.float64(single(batch["images"]))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), labels]
    hits = logits.argmax(1) == labels
    expected = {"loss": losses[:7].mean(), "accuracy": hits[:7].mean()}
    dataset = tf.data.Dataset.from_tensor_slices((batch["images"][:7], labels[:7]))
    dataset = dataset.take(6).batch(6).concatenate(dataset.skip(6).batch(1))
    for classifier in (single, double):
        found = classifier.evaluate(dataset, return_dict=True, verbose=0)
        check(found, expected)
        np.testing.assert_allclose(classifier.predict(dataset, verbose=0), logits[:7], atol=1e-5)
