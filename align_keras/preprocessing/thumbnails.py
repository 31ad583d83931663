"""Small JPEGs of images, for pages and indexes."""

import io

import numpy as np
from PIL import Image

from align_keras.preprocessing.decoding.decoder import decode_pixels


def make_thumbnail(image: bytes | np.ndarray, size: int, quality: int = 85) -> bytes:
    """A JPEG without metadata whose longer side is at most ``size`` pixels.

    Args:
        image: an encoded image, which is shown upright, or uint8 pixels ``(height, width, 3)``.
        size: maximum length of the longer side, in pixels.
        quality: quality of the JPEG, up to 95.

    Raises:
        ImageFaultError: if an encoded image does not decode.
    """
    pixels = image if isinstance(image, np.ndarray) else decode_pixels(image)
    return _encode(Image.fromarray(pixels), size, quality)


def small_pixels(encoded: bytes, size: int) -> np.ndarray:
    """An upright image in its aspect ratio, whose longer side is at most ``size`` pixels.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        ImageFaultError: if the image does not decode.
    """
    picture = Image.fromarray(decode_pixels(encoded))
    picture.thumbnail((size, size))
    return np.asarray(picture)


def _encode(picture: Image.Image, size: int, quality: int) -> bytes:
    picture.thumbnail((size, size))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
