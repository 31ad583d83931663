"""Batches of crops, which the model scales on the device."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import build_tiny_model, make_batch

from align_keras import AlignImageClassifier, AlignPreprocessor, Lamb
from align_keras.errors import InputError

SCALES = {"pixel_scale": [0.017, 0.0175, 0.0174], "pixel_offset": [-2.1, -2.0, -1.8]}


@pytest.fixture(scope="module")
def model(pieces):
    """A model that scales each channel differently."""
    preprocessor = AlignPreprocessor(pieces, 16, 20, 12, **SCALES)
    keras.utils.set_random_seed(1)
    model = build_tiny_model(preprocessor=preprocessor)
    model.compile(Lamb(1e-3))
    return model


@pytest.fixture(scope="module")
def batches(model):
    """The same batch with crops, and with crops that NumPy has scaled."""
    scaled = make_batch()
    shape = scaled.pop("images").shape
    pixels = np.random.default_rng(0).integers(256, size=shape).astype("uint8")
    images = pixels * np.float32(SCALES["pixel_scale"]) + np.float32(SCALES["pixel_offset"])
    return {"pixels": pixels, **scaled}, {"images": images, **scaled}


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_pixels_train_as_scaled_images_do(model, batches, micro_batch_size):
    model.compile(Lamb(1e-3), micro_batch_size=micro_batch_size)
    compute = tf.function(model.compute_gradients, autograph=False)
    (losses, gradients), (expected_losses, expected) = (
        compute({name: tf.constant(value) for name, value in batch.items()}) for batch in batches
    )
    np.testing.assert_allclose(losses["loss"], expected_losses["loss"], rtol=1e-6)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_pixels_are_embedded_and_scored_as_scaled_images_are(model, batches):
    pixels, images = batches
    expected = model(images)
    for name, value in model(pixels).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=name)
    for found in (
        model.predict(pixels, verbose=0),
        model.predict(tf.data.Dataset.from_tensor_slices(pixels).batch(3), verbose=0),
    ):
        assert found.keys() == pixels.keys() - {"pixels", *model.backbone.input} | {
            "image_embeddings",
            "text_embeddings",
        }
        np.testing.assert_allclose(
            found["image_embeddings"], expected["image_embeddings"], atol=2e-6
        )
    found, wanted = (
        model.evaluate(tf.data.Dataset.from_tensors(batch), verbose=0, return_dict=True)
        for batch in batches
    )
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)


def test_crops_are_only_scaled(model, batches):
    pixels, images = (
        batch[name] for batch, name in zip(batches, ("pixels", "images"), strict=True)
    )
    expected = model.encode_images(images)
    np.testing.assert_allclose(model.encode_images(pixels, 3, cropped=True), expected, atol=2e-6)
    # Without `cropped`, the images are first resized and cropped.
    assert np.abs(model.encode_images(pixels) - expected).max() > 1e-3

    classifier = AlignImageClassifier(model.backbone.image_encoder, ["a", "b"], model.preprocessor)
    classifier.head.kernel.assign(
        np.random.default_rng(0).normal(size=classifier.head.kernel.shape)
    )
    expected = classifier.score(images)
    np.testing.assert_allclose(classifier.score(pixels, cropped=True), expected, atol=1e-5)
    np.testing.assert_allclose(classifier(pixels), expected, atol=1e-5)


def test_pixels_need_a_preprocessor(model, batches, monkeypatch):
    monkeypatch.setattr(model, "preprocessor", None)
    with pytest.raises(InputError, match="no preprocessor"):
        model(batches[0])
