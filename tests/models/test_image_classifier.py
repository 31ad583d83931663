"""The classifier, its optimizer and its pipeline, compared with explicit computations."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build_tiny_model
from PIL import Image
from tiny_sizes import THREE_BLOCKS

from align_keras import AlignImageClassifier, LayerwiseSGD
from align_keras.data import examples, labelled_images
from align_keras.preprocessing import images


@pytest.fixture
def classifier(preprocessor):
    tower = build_tiny_model(image_tower=THREE_BLOCKS).backbone.image_encoder
    classifier = AlignImageClassifier(tower, ["ring", "cross", "star"], preprocessor)
    rng = np.random.default_rng(0)
    classifier.head.kernel.assign(rng.normal(size=classifier.head.kernel.shape))
    return classifier


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (6, 16, 16, 3)).astype("float32"), np.arange(6) % 3


def compiled(classifier, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(LayerwiseSGD(0.1, **options), loss=loss)
    return classifier


def values(weights):
    return {weight.path: weight.numpy().copy() for weight in weights}


def gradients_of(classifier, batch):
    """Gradients of the mean cross-entropy, by path, without Keras's losses and steps."""
    variables = [variable.value for variable in classifier.trainable_variables]
    with tf.GradientTape() as tape:
        logits = classifier(batch[0], training=True)
        own = tf.gather(tf.nn.log_softmax(logits), batch[1], axis=1, batch_dims=1)
        loss = -tf.reduce_mean(own)
    paths = [variable.path for variable in classifier.trainable_variables]
    return dict(zip(paths, [g.numpy() for g in tape.gradient(loss, variables)], strict=True))


def test_steps_are_those_written_out(classifier, batch):
    """Two steps of ``fit``: momentum, decay only of kernels, a tenth of the rate for the tower."""
    classifier.image_encoder.frozen_statistics = True
    compiled(classifier, factor=0.1, weight_decay=0.5)
    expected = values(classifier.trainable_variables)
    velocity = dict.fromkeys(expected, 0.0)
    for _ in range(2):
        for path, gradient in gradients_of(classifier, batch).items():
            rate = 0.1 if "head" in path else 0.01
            decay = 0.5 if expected[path].ndim > 1 else 0.0
            velocity[path] = 0.9 * velocity[path] - rate * (gradient + decay * expected[path])
            expected[path] = expected[path] + velocity[path]
        classifier.fit(*batch, batch_size=6, verbose=0)
        for path, value in values(classifier.trainable_variables).items():
            np.testing.assert_allclose(value, expected[path], atol=2e-5, err_msg=path)
    assert {"head" in path for path in expected} == {True, False}


def test_a_frozen_tower_stays_and_gives_features_of_inference(classifier, batch):
    classifier.image_encoder.trainable = False
    before = values(classifier.image_encoder.weights)
    np.testing.assert_array_equal(classifier(batch[0], training=True), classifier(batch[0]))
    head = classifier.head.kernel.numpy()
    compiled(classifier).fit(*batch, verbose=0)
    assert not np.array_equal(classifier.head.kernel.numpy(), head)
    for path, value in values(classifier.image_encoder.weights).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_neither_move_nor_give_way_to_the_batchs(frozen, classifier, batch):
    classifier.image_encoder.frozen_statistics = frozen
    assert classifier.image_encoder.frozen_statistics == frozen
    # Another image in the batch changes the batch's statistics.
    other = np.concatenate([batch[0][:5], 3 * batch[0][5:]])
    alike = [np.asarray(classifier(part, training=True))[0] for part in (batch[0], other)]
    assert np.allclose(*alike, atol=1e-6) == frozen
    before = values(classifier.weights)
    compiled(classifier).fit(*batch, verbose=0)
    changed = {
        path.rpartition("/")[2]: not np.array_equal(value, before[path])
        for path, value in values(classifier.weights).items()
        if "stem_bn" in path
    }
    moving = not frozen
    assert changed == {
        "gamma": True,
        "beta": True,
        "moving_mean": moving,
        "moving_variance": moving,
    }


@pytest.mark.parametrize("size", [8, 17, 24, 31])
def test_the_tower_takes_images_of_other_and_odd_sizes(size, classifier):
    pixels = np.random.default_rng(2).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    features = classifier.image_encoder(pixels).numpy()
    assert features.shape == (2, 16)
    assert np.isfinite(features).all()
    # Compared with the tower's last feature map, averaged by NumPy.
    tower = classifier.image_encoder
    maps = keras.Model(tower.input, tower.get_layer("pooling").input)(pixels).numpy()
    side = -(-size // 4)
    assert maps.shape[1:3] in ((side, side), (size // 4, size // 4))
    np.testing.assert_allclose(features, maps.mean((1, 2)), atol=1e-5)
    assert classifier(pixels).shape == (2, 3)


def test_a_saved_classifier_scores_the_same(classifier, batch, scene_images, tmp_path):
    compiled(classifier, factor=0.1, weight_decay=0.5).fit(*batch, verbose=0)
    scores = classifier.score(scene_images, batch_size=2)
    assert scores.shape == (3, 3)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    np.testing.assert_allclose(loaded.score(scene_images), scores, atol=1e-6)
    assert loaded.class_names == ["ring", "cross", "star"]
    assert (loaded.optimizer.decay, loaded.optimizer.factor) == (0.5, 0.1)
    assert classifier.score([]).shape == (0, 3)


def test_a_random_crop_covers_the_area_and_shape_that_it_may(preprocessor):
    """Red encodes the column and green the row, so a crop shows its position."""
    columns, rows = np.meshgrid(np.arange(200), np.arange(160))
    pixels = np.stack([columns, rows, 0 * rows], axis=-1).astype("uint8")
    path = tf.io.encode_png(pixels)
    spans = []
    for seed in range(60):
        crop = images.decode_random_area(path, [3, seed], 32, 0.25, antialias=False)
        crop = crop.numpy().astype("int32")
        width, height = np.ptp(crop[..., 0]) * 32 / 31, np.ptp(crop[..., 1]) * 32 / 31
        spans.append((width, height))
    width, height = np.array(spans).T
    share = width * height / pixels[..., 0].size
    assert share.min() > 0.25 - 0.03
    assert share.max() < 1.03
    assert share.max() - share.min() > 0.3
    assert (width / height).min() > 3 / 4 - 0.05
    assert (width / height).max() < 4 / 3 + 0.05
    first, again, other = (
        preprocessor.decode_random_area(path, tf.constant(seed), 0.25).numpy()
        for seed in ([3, 1], [3, 1], [3, 2])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Half of the crops are mirrored.
    mirrored = [
        preprocessor.decode_random_area(path, tf.constant([3, seed]), 0.25).numpy()[0, :, 0]
        for seed in range(40)
    ]
    assert 8 < sum(line[0] > line[-1] for line in mirrored) < 32


def batches(read, count, start_batch=0):
    """Batches of three from epochs of eight images; each image is its own number."""
    dataset = labelled_images.training_dataset(
        read,
        8,
        lambda encoded, seed: tf.cast(tf.fill([1, 1, 3], tf.strings.to_number(encoded)), tf.uint8),
        1,
        3,
        start_batch=start_batch,
        buffer=4,
    )
    taken = itertools.islice(dataset, count)
    return [
        (pixels.numpy()[:, 0, 0, 0].tolist(), labels.numpy().tolist()) for pixels, labels in taken
    ]


def test_epochs_show_every_image_once_and_resume_anywhere():
    asked = []

    def read(epoch):
        asked.append(epoch)
        for number in np.random.default_rng(epoch).permutation(8):
            yield str(number).encode(), int(number) * 10, "file"

    whole = batches(read, 8)
    shown = [number for numbers, _ in whole for number in numbers]
    for epoch in range(3):
        assert sorted(shown[8 * epoch : 8 * epoch + 8]) == list(range(8))
    assert shown[:8] != shown[8:16]
    assert all(label == 10 * number for pair in whole for number, label in zip(*pair, strict=True))
    for start in (1, 3, 5):
        asked.clear()
        assert batches(read, 3, start) == whole[start : start + 3]
        assert asked[0] == 3 * start // 8  # earlier epochs are not read


def test_data_come_in_an_order_that_the_seed_decides(tmp_path):
    for index in range(6):
        path = tmp_path / "abc"[index % 3] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    lines = [f'{{"image": "{index}.png", "class_name": "a"}}\n' for index in range(6)]
    (tmp_path / "table.jsonl").write_text("".join(lines))
    for data in (tmp_path, tmp_path / "table.jsonl"):
        found = examples.open_examples(str(data))
        orders = [[example.key for example in found.shuffled(seed)] for seed in (1, 1, 2)]
        assert orders[0] == orders[1] != orders[2]
        assert sorted(orders[0]) == sorted(orders[2]) == sorted(example.key for example in found)
