import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image

from align_keras.preprocessing import images

# Widths and heights below and above 64, so that Pillow resizes in both orders of axes.
SIZES = [(252, 420), (420, 252), (640, 480), (64, 64), (64, 90), (30, 40), (40, 30), (33, 900)]


@pytest.mark.parametrize("size", SIZES)
def test_antialiased_resize_is_pillows_to_the_bit(size):
    if size == (33, 900) and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow below 13 resizes the sides of very tall pictures in the other order")
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype("uint8")
    expected = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images.resize(pixels, 64, antialias=True), expected)


def test_sums_of_thousands_of_rows_are_exact():
    """Means lie between two grey levels, so small errors of a sum would change the rounding."""
    stripes = np.arange(100_000)[:, None, None] + np.arange(48).reshape(16, 3)
    pixels = (100 + stripes % 2).astype("uint8")
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images.resize(pixels, 16, antialias=True), expected)


def test_plain_resize_samples():
    pixels = np.zeros((256, 256, 3), "uint8")
    pixels[::4] = 255
    spread = {a: np.ptp(images.resize(pixels, 64, antialias=a)[2:-2]) for a in (True, False)}
    assert spread == {True: 0.0, False: 0.0}
    assert images.resize(pixels, 64, antialias=False).numpy().mean() < 1.0
    assert 60.0 < images.resize(pixels, 64, antialias=True).numpy().mean() < 67.0


def test_centre_crop():
    image = tf.reshape(tf.range(7 * 7 * 3), [7, 7, 3])
    np.testing.assert_array_equal(images.centre_crop(image, 4), image[1:5, 1:5])
