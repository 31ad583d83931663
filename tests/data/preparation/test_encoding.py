"""Encoded images: an image that decodes is packed, and every fault has its own reason."""

import io

import numpy as np
import pytest
from bombs import make_bomb
from PIL import Image, PngImagePlugin

from align_keras.data.preparation import encoding
from align_keras.preprocessing.decoding.decoder import decode_pixels
from align_keras.preprocessing.decoding.faults import ImageFaultError


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_png_with_megabytes_of_text_is_packed(compressed):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=compressed)
    texts.add_itxt("prompt", "y" * 3_000_000, zip=compressed)
    data = encoded(Image.new("RGB", (120, 90), "red"), "PNG", pnginfo=texts)
    assert encoding.image_size(data) == (120, 90)
    assert np.abs(pixels_of(encoding.to_jpeg(data)) - [255, 0, 0]).max() <= 2


def test_a_transparent_picture_is_laid_on_white():
    data = encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG")
    assert pixels_of(encoding.to_jpeg(data)).min() >= 253


def turned(picture, kind, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, kind, exif=exif)


def test_what_is_packed_is_what_is_searched():
    """A file of any kind gives the same pixels, whether it is packed first or read directly."""
    y, x = np.mgrid[0:40, 0:60]
    picture = Image.fromarray(np.stack([4 * x, 6 * y, 2 * x + y, 255 - 4 * x], -1).astype("uint8"))
    files = [encoded(picture, kind) for kind in ("PNG", "GIF", "WEBP")]
    files += [encoded(picture.convert("RGB").quantize(16), "BMP")]
    files += [turned(picture, kind) for kind in ("PNG", "WEBP")]
    files += [turned(picture.convert(mode), "JPEG") for mode in ("RGB", "CMYK")]
    for data in files:
        direct = decode_pixels(data).astype(int)
        packed = decode_pixels(encoding.to_jpeg(data))
        assert packed.shape == direct.shape
        assert np.abs(packed - direct).mean() < 2
        height, width, _ = direct.shape
        assert encoding.image_size(data) == (width, height)
    jpeg = turned(picture.convert("RGB"), "JPEG")
    assert encoding.to_jpeg(jpeg) == jpeg


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not decode"),
        (b"\x89PNG\r\n\x1a\n", "does not decode"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "does not decode"),
        (encoded(Image.new("RGB", (64, 64), "red"), "PNG")[:-40], "does not decode"),
        (make_bomb(), "too many pixels"),
        (encoded(Image.new("RGB", (8, 8)), "TIFF"), "unsupported format"),
    ],
    ids=["empty", "mark alone", "noise", "cut", "bomb", "TIFF"],
)
def test_a_fault_has_its_reason(data, reason):
    with pytest.raises(ImageFaultError, match=reason):
        encoding.to_jpeg(data)


def test_a_picture_too_long_for_a_jpeg_says_so():
    data = encoded(Image.new("P", (65_501, 1)), "GIF")
    assert decode_pixels(data).shape == (1, 65_501, 3)
    with pytest.raises(ImageFaultError, match="side of more than 65,500 pixels, the limit of JPEG"):
        encoding.to_jpeg(data)
