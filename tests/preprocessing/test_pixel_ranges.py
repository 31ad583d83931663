"""Floats outside the range of a model's inputs are refused by every method that takes images."""

import re

import numpy as np
import pytest
import tensorflow as tf

from align_keras.errors import InputError

CAPTIONS = ["a red ring", "a blue cross", "a star"]


@pytest.fixture
def pixels():
    """Two images in range, then one of 0 to 255, as decoders and TensorFlow's resize give them."""
    found = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3))
    found[2] = np.linspace(0, 255, found[2].size).reshape(found[2].shape)
    return found.astype("float32")


def pairs(model, pixels):
    return {"images": pixels, **model.preprocessor.tokenize(CAPTIONS)}


def slices(values):
    return tf.data.Dataset.from_tensor_slices(values)


@pytest.mark.parametrize(
    "call",
    [
        # The last batch is checked too.
        lambda m, p: m.encode_images(p, batch_size=2),
        lambda m, p: m.encode_images(slices(p)),
        lambda m, p: m.encode_images(slices({"images": p}).batch(2)),
        lambda m, p: m.encode_images(slices((p, [0, 1, 2]))),
        lambda m, p: m.encode_images(slices(p.astype("float64"))),
        lambda m, p: m.predict(pairs(m, p), verbose=0),
        lambda m, p: m.predict(slices(pairs(m, p)).batch(2), verbose=0),
        lambda m, p: m.predict(slices({"images": p, "captions": CAPTIONS}), verbose=0),
    ],
)
def test_floats_of_0_to_255_are_one_line(call, tiny_model, pixels):
    with pytest.raises(InputError) as raised:
        call(tiny_model, pixels)
    assert re.fullmatch(
        r"images: floats from (-0\.99\d|-1|0) to 255, but the model takes -1 to 1; give uint8 "
        "images, which are scaled",
        str(raised.value),
    )


def test_floats_in_range_pass_and_noise_with_them(tiny_model, pixels):
    pixels[2] = 1.8 * pixels[0]
    expected = tiny_model.encode_images(pixels)
    np.testing.assert_allclose(tiny_model.encode_images(slices(pixels)), expected, atol=1e-6)
    outputs = tiny_model.predict(slices(pairs(tiny_model, pixels)).batch(2), verbose=0)
    np.testing.assert_allclose(outputs["image_embeddings"], expected, atol=1e-5)


def test_what_fails_in_the_model_is_not_called_an_image(tiny_model, pixels):
    wrong = pairs(tiny_model, pixels[:2].repeat(2, 0)[:3])
    wrong["token_ids"] = np.full((3, 12), 10_000, "int32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="10000 is not in"):
        tiny_model.predict(slices(wrong).batch(3), verbose=0)
