"""Encoded images: their size, and whether they decode; all of them as JPEG."""

import io

import numpy as np
from PIL import Image

from align_keras.preprocessing.images import MAX_PIXELS

_PNG = b"\x89PNG\r\n\x1a\n"


class ImageFaultError(ValueError):
    """A short reason why an encoded image cannot be used."""


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of an encoded image by its header, or None if there is none to read."""
    try:
        with Image.open(io.BytesIO(_without_texts(data))) as image:
            return image.size
    except Exception:  # as in to_jpeg, which says why
        return None


def to_jpeg(data: bytes) -> bytes:
    """Checks that an image decodes; a JPEG keeps its bytes, others become JPEG.

    Raises:
        ImageFaultError: if it does not decode or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(_without_texts(data))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageFaultError("image has too many pixels")
            image.load()
            # MPO is a JPEG with a preview behind it, as phones write.
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                return data
            encoded = io.BytesIO()
            _flatten(image).save(encoded, "JPEG", quality=95)
            return encoded.getvalue()
    except ImageFaultError:
        raise
    except Image.DecompressionBombError:
        raise ImageFaultError("image has too many pixels") from None
    except Exception:  # Pillow's readers raise whatever the bytes lead them to
        raise ImageFaultError("image does not decode") from None


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


def _flatten(image: Image.Image) -> Image.Image:
    """Converts to RGB, with white behind transparent pixels."""
    if image.mode.startswith("I;16"):
        # Pillow would cut all above 255.
        return Image.fromarray((np.asarray(image) >> 8).astype("uint8")).convert("RGB")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
