"""Files saved by an earlier version load and give the same numbers."""

import re
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from align_keras import AlignBackbone, AlignDualEncoder, AlignPreprocessor, Lamb

SAVED = ROOT / "tests" / "models" / "saved_by_0_1" / "files.zip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with zipfile.ZipFile(SAVED) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return dict(np.load(folder / "expected.npz"))


@pytest.fixture
def fresh(folder):
    """The model with random weights."""
    return AlignDualEncoder.from_preset(folder / "preset", load_weights=False)


def crops_of(images, preprocessor):
    """Model inputs of that version, which did not round resized pixels."""
    size, crop = preprocessor.resize_size, preprocessor.image_size
    start = (size - crop) // 2
    resized = tf.image.resize(images, [size, size])[:, start : start + crop, start : start + crop]
    crops = preprocessor({"images": images})["images"]
    exact = resized * preprocessor.pixel_scale + preprocessor.pixel_offset
    # The tolerance is half a grey level.
    np.testing.assert_allclose(crops, exact, atol=0.501 * preprocessor.pixel_scale)
    return exact


def assert_embeds_as_before(model, expected):
    crops = crops_of(expected["images"], model.preprocessor)
    np.testing.assert_allclose(model.encode_images(crops), expected["image_embeddings"], atol=1e-6)
    np.testing.assert_allclose(
        model.encode_texts(expected["captions"].tolist()), expected["text_embeddings"], atol=1e-6
    )
    assert float(model.temperature) == float(expected["temperature"])


def test_a_keras_file_loads_with_its_optimizer(folder, expected):
    model = keras.models.load_model(folder / "dual_encoder.keras")
    assert_embeds_as_before(model, expected)
    assert int(model.optimizer.iterations) == 1
    assert [v.path for v in model.optimizer.variables] == expected["optimizer"].tolist()


def test_weights_stand_in_their_old_order_under_their_old_names(folder, expected, fresh):
    fresh.load_weights(folder / "dual_encoder.weights.h5")
    assert_embeds_as_before(fresh, expected)
    sums = dict(zip(expected["variables"].tolist(), expected["sums"], strict=True))
    for weight in fresh.weights:
        assert np.float64(weight.numpy()).sum() == sums[weight.path], weight.path


def test_variables_have_their_old_names_and_order(expected, fresh):
    # The names of seed generators contain a counter of the process.
    def names(paths):
        return [re.sub(r"seed_generator_\d+", "seed_generator", path) for path in paths]

    fresh.compile(Lamb())
    assert names(v.path for v in fresh.variables) == names(expected["variables"].tolist())


def test_a_preset_loads(folder, expected):
    assert_embeds_as_before(AlignDualEncoder.from_preset(folder / "preset"), expected)
    preprocessor = AlignPreprocessor.from_preset(folder / "preset")
    backbone = AlignBackbone.from_preset(folder / "preset")
    pixels = crops_of(expected["images"], preprocessor)
    np.testing.assert_allclose(
        backbone.encode_images(pixels), expected["image_embeddings"], atol=1e-6
    )


def test_a_classifier_loads(folder, expected):
    classifier = keras.models.load_model(folder / "classifier.keras")
    np.testing.assert_allclose(
        classifier.score(crops_of(expected["images"], classifier.preprocessor)),
        expected["logits"],
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_checkpoint_restores(folder, expected, fresh):
    """As in a run: weights, and the states of optimizer and dropout, are restored."""
    saved = keras.models.load_model(folder / "dual_encoder.keras")
    fresh.compile(keras.optimizers.deserialize(keras.optimizers.serialize(saved.optimizer)))
    fresh.optimizer.build(fresh.trainable_variables)
    checkpoint = tf.train.Checkpoint(
        model=fresh,
        optimizer=fresh.optimizer,
        seeds=[v.value for v in fresh.variables if "seed" in v.path],
    )
    checkpoint.read(str(folder / "checkpoint")).assert_existing_objects_matched()
    assert_embeds_as_before(fresh, expected)
    for variable, wanted in zip(fresh.optimizer.variables, saved.optimizer.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy(), err_msg=wanted.path)
    for variable, total in zip(fresh.variables, expected["sums"], strict=True):
        assert np.float64(variable.numpy()).sum() == total, variable.path
