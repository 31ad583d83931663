"""Every kind of file gives the same pixels as Pillow, upright and on white."""

import numpy as np
import pytest
import tensorflow as tf
from pictures import (
    BLACK_AND_WHITE,
    CUT_OUT,
    GREY,
    RGB,
    RGBA,
    bitmap,
    encoded,
    exif,
    pillow_pixels,
)
from PIL import Image

from align_keras.preprocessing.decoding import decoder, faults, pillow

OTHERS = {"save_all": True, "append_images": [RGBA, Image.new("RGBA", RGB.size)]}
FOUR_BITS = RGB.quantize(16)
FILES = {
    "JPEG": encoded(RGB, "JPEG", quality=95),
    "JPEG, progressive": encoded(RGB, "JPEG", progressive=True),
    "JPEG, grey": encoded(GREY, "JPEG"),
    "JPEG, CMYK": encoded(RGB.convert("CMYK"), "JPEG"),
    "PNG": encoded(RGB, "PNG"),
    "PNG, opacity": encoded(RGBA, "PNG"),
    "PNG, grey with opacity": encoded(RGBA.convert("LA"), "PNG"),
    "PNG, colours with opacity": encoded(RGBA.quantize(32), "PNG"),
    "PNG, 4 bits": encoded(FOUR_BITS, "PNG"),
    "PNG, 4 bits, one transparent": encoded(FOUR_BITS, "PNG", transparency=3),
    "PNG, 1 bit": encoded(BLACK_AND_WHITE, "PNG"),
    "PNG, 1 bit, one transparent": encoded(BLACK_AND_WHITE, "PNG", transparency=0),
    "PNG, one grey transparent": encoded(GREY, "PNG", transparency=GREY.getpixel((3, 3))),
    "PNG, one colour transparent": encoded(RGB, "PNG", transparency=RGB.getpixel((3, 3))),
    "PNG, animated": encoded(CUT_OUT, "PNG", **OTHERS),
    "GIF": encoded(RGB, "GIF"),
    "GIF, transparent": encoded(CUT_OUT, "GIF"),
    "GIF, animated": encoded(CUT_OUT, "GIF", comment=b"x" * 999, **OTHERS),
    "BMP": encoded(RGB, "BMP"),
    "BMP, 8 bits": encoded(RGB.quantize(200), "BMP"),
    "BMP, 4 bits": bitmap(np.arange(22 * 9).reshape(9, 22) % 256, 4, width=43),
    "BMP, 1 bit": encoded(BLACK_AND_WHITE, "BMP"),
    "BMP, grey": encoded(GREY, "BMP"),
    "BMP, 32 bits": encoded(RGBA, "BMP"),
    "WebP": encoded(RGB, "WEBP"),
    "WebP, lossless": encoded(RGB, "WEBP", lossless=True),
    "WebP, opacity": encoded(RGBA, "WEBP"),
    "WebP, opacity, lossless": encoded(RGBA, "WEBP", lossless=True),
    "WebP, extended": encoded(RGB, "WEBP", icc_profile=b"x" * 77),
    "WebP, extended, lossless": encoded(RGB, "WEBP", icc_profile=b"x" * 77, lossless=True),
    "WebP, animated": encoded(RGB, "WEBP", **{**OTHERS, "append_images": [GREY.convert("RGB")]}),
    "WebP, animated, opacity": encoded(CUT_OUT, "WEBP", **OTHERS),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WebP"])
def test_pixels_are_pillows(format):
    for kind in (kind for kind in FILES if kind.startswith(format)):
        found, expected = decoder.decode_pixels(FILES[kind]), pillow_pixels(FILES[kind])
        # TensorFlow's and Pillow's versions of libjpeg may round colours differently.
        np.testing.assert_allclose(found, expected, atol=1 if format == "JPEG" else 0, err_msg=kind)


@pytest.mark.parametrize(
    "kind", ["PNG, opacity", "GIF, transparent", "PNG, 1 bit", "WebP, opacity"]
)
def test_a_picture_that_pillow_opened_is_as_its_file(kind, tmp_path):
    (tmp_path / "file").write_bytes(FILES[kind])
    with Image.open(tmp_path / "file") as picture:
        found = pillow.pixels_of(picture)
    np.testing.assert_array_equal(found, decoder.decode_pixels(FILES[kind]))


def test_of_sixteen_bits_the_higher_eight_count():
    deep = np.random.default_rng(0).integers(0, 1 << 16, (9, 7)).astype("uint16")
    found = decoder.decode_pixels(encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(found, np.repeat((deep >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)])
def test_bitmaps_of_sixteen_bits_go_by_their_masks(masks):
    rows = np.random.default_rng(0).integers(0, 256, (5, 14)).astype("uint8")
    data = bitmap(rows, 16, 3, np.array(masks, "<u4").tobytes(), width=7, top_down=True)
    words = rows.view("<u2")
    expected = [(words & m) // (m & -m) * 255 // (m // (m & -m)) for m in masks[:3]]
    np.testing.assert_array_equal(decoder.decode_pixels(data), np.stack(expected, axis=-1))
    np.testing.assert_array_equal(decoder.decode_pixels(data), pillow_pixels(data))


def test_bitmaps_with_an_opacity_are_laid_on_white():
    rows = np.random.default_rng(0).integers(0, 256, (5, 28)).astype("uint8")
    masks = np.array([0xFF0000, 0xFF00, 0xFF, 0xFF000000], "<u4").tobytes()
    data = bitmap(rows, 32, 3, masks, width=7)
    np.testing.assert_array_equal(decoder.decode_pixels(data), pillow_pixels(data))


def test_what_the_frame_of_a_gif_leaves_open_is_white():
    data = bytearray(encoded(Image.new("RGB", (8, 6), "red"), "GIF"))
    frame = data.index(b"\x2c\0\0\0\0")
    data[6:10] = b"\x0c\0\x09\0"  # the screen is larger than the frame
    data[frame + 1 : frame + 5] = b"\x03\0\x02\0"  # the frame's left and top
    found = decoder.decode_pixels(bytes(data))
    expected = np.full((9, 12, 3), 255)
    expected[2:8, 3:11] = [255, 0, 0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "does not decode"),
        (b"text", "does not decode"),
        (FILES["JPEG"][:300], "does not decode"),
        (FILES["BMP, 8 bits"][:900], "does not decode"),
        (FILES["GIF, transparent"][:40], "does not decode"),
        (b"GIF89a" + b"\1\0" * 2 + bytes(3) + b"\x21\xfe\1a" * 5000, "does not decode"),
        (FILES["WebP, animated"][:99], "does not decode"),
        (encoded(RGB, "TIFF"), "is of an unsupported format"),
        (b"\0\0\0\x20ftypavif" + bytes(99), "is of an unsupported format"),
        (bitmap([b"\1" * 43] * 2, 8, compression=1, width=43), "is a compressed BMP"),
        (bitmap([b"\1" * 4], 32, width=1 << 30), "has too many pixels"),
    ],
)
def test_what_is_refused_has_its_reason(data, fault):
    with pytest.raises(faults.ImageFaultError) as raised:
        decoder.decode_pixels(data)
    assert str(raised.value) == fault


@pytest.mark.parametrize("kind", ["JPEG, upside down", "PNG, opacity", "JPEG"])
def test_a_window_is_a_part_of_the_whole(kind):
    files = {**FILES, "JPEG, upside down": encoded(RGB, "JPEG", exif=exif(7))}
    seen = []

    def window(shape):
        seen.append(shape)
        return tf.constant([2, 8, 11, 16])

    data = tf.constant(files[kind])
    whole = decoder.decode(data)
    part = decoder.decode_window(data, window)
    np.testing.assert_array_equal(seen[0], whole.shape)
    # Colours of the last row and column of a cropped JPEG lack neighbours for smoothing.
    difference = np.abs(part.numpy().astype(int) - whole[2:13, 8:24].numpy())
    assert part.shape == (11, 16, 3)
    assert np.median(difference) == 0
