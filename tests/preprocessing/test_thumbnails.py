import io

import numpy as np
import pytest
from bombs import make_bomb
from PIL import Image

from align_keras.preprocessing.decoding.faults import ImageFaultError
from align_keras.preprocessing.thumbnails import make_thumbnail


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg))


def encode(picture, format="JPEG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("shape", "size"), [((200, 100), (16, 32)), ((10, 20), (20, 10))])
def test_the_longer_side_is_at_most_the_size(shape, size):
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype("uint8")
    for image in (pixels, encode(Image.fromarray(pixels), "PNG")):
        picture = opened(make_thumbnail(image, 32))
        assert (picture.format, picture.size) == ("JPEG", size)


def test_it_holds_no_metadata_and_is_rgb():
    exif = Image.Exif()
    exif[271] = "a camera"
    encoded = encode(Image.new("L", (50, 50)), exif=exif, comment=b"a secret")
    picture = opened(make_thumbnail(encoded, 32))
    assert picture.mode == "RGB"
    assert not picture.getexif()
    assert "comment" not in picture.info


def test_a_lower_quality_takes_less():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype("uint8")
    assert len(make_thumbnail(pixels, 64, quality=40)) < len(make_thumbnail(pixels, 64))


def test_what_cannot_be_shown_is_an_error():
    with pytest.raises(ImageFaultError, match="does not decode"):
        make_thumbnail(b"no image", 32)
    with pytest.raises(ImageFaultError, match="too many pixels"):
        make_thumbnail(make_bomb(), 32)
