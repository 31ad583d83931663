"""The share of an image in the limit on pixels that are decoded at a time."""

import io

import numpy as np
import pytest
from PIL import Image

from align_keras.preprocessing.decoding.faults import MAX_PIXELS
from align_keras.search.pixel_budget import pixels_of


def encoded(kind, mode, **options):
    """An encoded image of 30 x 20 pixels."""
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "factor"),
    [
        (encoded("JPEG", "RGB"), 1),
        (encoded("JPEG", "L", exif=Image.Exif().tobytes()), 1),
        (encoded("JPEG", "RGB", progressive=True), 4),
        (encoded("PNG", "RGB"), 1),
        (encoded("PNG", "P"), 1),
        (encoded("PNG", "RGBA"), 4),
        (encoded("PNG", "LA"), 4),
        (encoded("PNG", "I;16"), 4),
    ],
)
def test_an_image_counts_by_the_memory_that_it_takes(data, factor):
    assert pixels_of(data) == 600 * factor


def test_what_shows_no_size_counts_as_the_largest():
    noise = np.random.default_rng(0).bytes(300)
    jpeg = encoded("JPEG", "RGB", progressive=True)
    for data in (
        b"GIF89a",
        b"\xff\xd8",
        b"\xff\xd8" + noise,
        b"\xff\xd8\xff\xe0\0\0" * 9,
        jpeg[:60],
    ):
        assert pixels_of(data) >= MAX_PIXELS
    filled = jpeg.replace(b"\xff\xc2", b"\xff\xff\xff\xc2", 1)
    assert pixels_of(filled) == 2_400
