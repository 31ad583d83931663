"""EXIF's orientation is read as by Pillow in every form; damaged EXIF counts as absent."""

import io
import struct
import time

import numpy as np
import pytest
import tensorflow as tf
from pictures import RGB, RGBA, encoded, exif, pillow_pixels
from PIL import Image

from align_keras import AlignPreprocessor
from align_keras.preprocessing.decoding import decoder, orientation, pillow

# Each pixel is enlarged to a block of 8 x 8, so that JPEG adds no noise.
UPRIGHT = Image.fromarray(np.asarray(RGB).repeat(8, 0).repeat(8, 1))


def with_segments(jpeg, *segments):
    """A JPEG with additional segments (marker, contents) before its own segments."""
    parts = [struct.pack(">BBH", 0xFF, mark, len(data) + 2) + data for mark, data in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


JPEG = encoded(UPRIGHT, "JPEG")


def turned_files(segment):
    return (
        encoded(UPRIGHT, "JPEG", exif=segment),
        encoded(UPRIGHT, "JPEG", exif=segment, icc_profile=b"x" * 999, comment=b"Exif\0\0"),
        encoded(RGBA, "PNG", exif=segment),
        encoded(RGB, "WEBP", exif=segment[6:], lossless=True),
        encoded(RGBA, "WEBP", exif=segment, lossless=True),
    )


# All cases are one test: setting the seed in each test would make TensorFlow load its functions
# again.
@pytest.mark.parametrize("big_endian", [False, True])
def test_all_ways_are_pillows(big_endian):
    ways = [(way, d) for way in range(1, 9) for d in turned_files(exif(way, big_endian))]
    for way, data in ways:
        found, expected = decoder.decode_pixels(data), pillow_pixels(data)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1 if data[:1] == b"\xff" else 0)
        assert decoder.read_orientation(data) == way
        with Image.open(io.BytesIO(data)) as picture:
            np.testing.assert_array_equal(pillow.pixels_of(picture), expected)
        stored = decoder.decode_pixels(data, upright=False)
        assert stored.shape == (found.shape if way < 5 else (*found.shape[1::-1], 3))
        np.testing.assert_array_equal(orientation.turn(stored, way), found)


@pytest.mark.parametrize(
    ("segments", "way"),
    [
        ([(0xE1, exif(6, kind="I", tags_before=40))], 6),
        ([(0xE1, exif(6, True, kind="I"))], 6),
        ([(0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE2, b"y" * 60_000), (0xE1, exif(8))], 8),
        ([(0xFE, b"\xff\xe1\0\x30" + exif(6))], 1),  # in a comment
        ([(0xE1, exif(9))], 1),
        ([(0xE1, exif(0))], 1),
        ([(0xE1, exif(6)[:-9])], 1),  # the value is cut off
        ([(0xE1, exif(6)[:7])], 1),
        ([(0xE1, b"Exif\0\0")], 1),
        ([(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(40))], 1),
        ([(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40))], 1),
        ([(0xE1, b"Exif\0\0XX" + exif(6)[8:])], 1),
        ([(0xE1, b"Exif\0\0" + b"\xff" * 999)], 1),
        ([(0xE1, b"")] * 9000 + [(0xE1, exif(6))], 1),  # after more segments than are searched
    ],
)
def test_odd_and_damaged_exif(segments, way):
    data = with_segments(JPEG, *segments)
    begin = time.perf_counter()
    assert decoder.read_orientation(data) == way
    np.testing.assert_array_equal(
        decoder.decode_pixels(data), orientation.turn(decoder.decode_pixels(JPEG), way)
    )
    assert time.perf_counter() - begin < 20


def test_no_byte_of_exif_makes_decoding_fail():
    data = bytearray(encoded(UPRIGHT.resize((8, 8)), "JPEG", exif=exif(6)))
    start, rng = data.index(b"Exif"), np.random.default_rng(0)
    for place in range(start, start + 40):
        changed = bytearray(data)
        changed[place] = rng.integers(256)
        decoder.decode_pixels(bytes(changed))
        assert decoder.read_orientation(bytes(changed)) in range(1, 9)


@pytest.mark.parametrize("way", range(1, 9))
def test_random_crops_are_those_of_the_upright_image(way, pieces):
    preprocessor = AlignPreprocessor(pieces, 32, 48, 12)
    turned, upright = (
        tf.constant(encoded(picture, "JPEG", quality=95, **options))
        for picture, options in (
            (UPRIGHT, {"exif": exif(way)}),
            (Image.fromarray(orientation.turn(np.asarray(UPRIGHT), way).numpy()), {}),
        )
    )
    for crop in (preprocessor.decode_random_crop, preprocessor.decode_random_area):
        found, expected = (crop(one, [3, way]).numpy().astype(int) for one in (turned, upright))
        # The windows are the same; different windows would differ much more.
        assert np.abs(found - expected).mean() < 0.12 * np.ptp(expected)


def test_the_stored_pixels_are_an_option_that_is_saved(pieces):
    data = encoded(UPRIGHT, "JPEG", exif=exif(6))
    preprocessor = AlignPreprocessor(pieces, 32, 48, 12, upright=False)
    again = AlignPreprocessor.from_config(preprocessor.get_config())
    assert not again.upright
    without = encoded(UPRIGHT, "JPEG")
    for method in (again.decode_centre_crop, lambda d: again.decode_random_crop(d, [1, 2])):
        np.testing.assert_array_equal(method(tf.constant(data)), method(tf.constant(without)))
    older = {n: v for n, v in preprocessor.get_config().items() if n != "upright"}
    assert AlignPreprocessor.from_config(older).upright
