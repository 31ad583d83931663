"""Encoded images: their size, and whether they decode; all of them as JPEG."""

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
# Of libjpeg, pixels; within MAX_PIXELS a GIF's or PNG's side can be longer.
_MAX_JPEG_SIDE = 65_500


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the upright image by its header, or None if there is none to read."""
    try:
        with Image.open(io.BytesIO(_without_texts(data))) as image:
            width, height = image.size
    except Exception:  # Pillow's readers raise whatever the bytes lead them to
        return None
    return (height, width) if read_orientation(data) in EXCHANGED else (width, height)


def to_jpeg(data: bytes) -> bytes:
    """Checks that an image decodes, as in training; a JPEG keeps its bytes, others become JPEG.

    A JPEG's orientation stays in its EXIF, which training reads. Others are turned upright, and
    laid on white where they are transparent.

    Raises:
        ImageFaultError: if it is not decoded, or JPEG has no place for its longer side.
    """
    if data.startswith(_JPEG) and check_jpeg(data) in (1, 3):
        return data
    pixels = decode_pixels(data)
    if max(pixels.shape) > _MAX_JPEG_SIDE:
        raise ImageFaultError(f"has a side of more than the {_MAX_JPEG_SIDE:,} pixels of a JPEG")
    encoded = io.BytesIO()
    # Colour at full resolution: JPEG's default halves it, which blurs a drawing's edges.
    Image.fromarray(pixels).save(encoded, "JPEG", quality=95, subsampling=0)
    return encoded.getvalue()


def _without_texts(data: bytes) -> bytes:
    """A PNG less its texts: Pillow refuses those over a megabyte, as image generators write."""
    if not data.startswith(_PNG):
        return data
    parts, start = [_PNG], len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            parts.append(data[start:end])
        start = end
    return b"".join(parts)
