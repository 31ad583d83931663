"""Small JPEGs of images, for pages and indexes."""

import io

import numpy as np
from PIL import Image

from align_keras.preprocessing.images import MAX_PIXELS


def make_thumbnail(image: bytes | np.ndarray, size: int, quality: int = 85) -> bytes:
    """A JPEG whose longer side is at most ``size`` pixels; it holds no metadata.

    Args:
        image: an encoded image, or uint8 pixels ``(height, width, 3)``.
        size: pixels.
        quality: of the JPEG, up to 95.

    Raises:
        ValueError: if an encoded image has more than ``MAX_PIXELS``.
        OSError: if it does not decode.
    """
    if isinstance(image, np.ndarray):
        return _encode(Image.fromarray(image), size, quality)
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # A JPEG is decoded at a fraction of its size.
            opened.draft("RGB", (2 * size, 2 * size))
            return _encode(opened, size, quality)
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels") from None


def _encode(picture: Image.Image, size: int, quality: int) -> bytes:
    picture.thumbnail((size, size))
    picture = picture.convert("RGB")
    # A comment would be saved again.
    picture.info.clear()
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
