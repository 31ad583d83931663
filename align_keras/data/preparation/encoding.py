"""Encoded images: reads their size, checks that they decode, and converts them to JPEG."""

import io

from PIL import Image

from align_keras.preprocessing.decoding.decoder import (
    check_jpeg,
    decode_pixels,
    read_orientation,
)
from align_keras.preprocessing.decoding.faults import ImageFaultError
from align_keras.preprocessing.decoding.orientation import EXCHANGED

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
# libjpeg's limit, in pixels. A GIF or PNG within MAX_PIXELS can have a longer side.
_MAX_JPEG_SIDE = 65_500


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the upright image from its header; None if the header cannot be read."""
    try:
        with Image.open(io.BytesIO(_without_texts(data))) as image:
            width, height = image.size
    except Exception:  # Pillow's readers raise errors of any kind
        return None
    return (height, width) if read_orientation(data) in EXCHANGED else (width, height)


def to_jpeg(data: bytes) -> bytes:
    """Checks that an image decodes, as in training. JPEGs keep their bytes; others become JPEG.

    A JPEG keeps its EXIF orientation, which training applies. Other images are turned upright, and
    transparent ones get a white background.

    Raises:
        ImageFaultError: if the image does not decode, or its longer side exceeds the limit of JPEG.
    """
    if data.startswith(_JPEG) and check_jpeg(data) in (1, 3):
        return data
    pixels = decode_pixels(data)
    if max(pixels.shape) > _MAX_JPEG_SIDE:
        raise ImageFaultError(
            f"has a side of more than {_MAX_JPEG_SIDE:,} pixels, the limit of JPEG"
        )
    encoded = io.BytesIO()
    # Chroma at full resolution: JPEG's default halves it, which blurs the edges of drawings.
    Image.fromarray(pixels).save(encoded, "JPEG", quality=95, subsampling=0)
    return encoded.getvalue()


def _without_texts(data: bytes) -> bytes:
    """A PNG without its text chunks, since Pillow rejects those over a megabyte."""
    if not data.startswith(_PNG):
        return data
    parts, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            parts.append(data[start:end])
        start = end
    return b"".join(parts)
