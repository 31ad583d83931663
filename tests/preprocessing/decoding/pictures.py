"""Encoded pictures of every kind, for tests of decoding, and their pixels as Pillow reads them."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

_RNG = np.random.default_rng(0)
#: The image has every opacity, and its rows do not fill whole words for any number of bits.
RGBA = Image.fromarray(_RNG.integers(0, 256, (29, 43, 4)).astype("uint8"), "RGBA")
RGB = RGBA.convert("RGB")
GREY = RGB.convert("L")
BLACK_AND_WHITE = RGB.convert("1")
#: Every pixel is fully opaque or fully transparent, because GIF has no other opacities.
CUT_OUT = Image.composite(RGBA, Image.new("RGBA", RGBA.size), Image.new("L", RGBA.size, 0))
CUT_OUT.paste(RGB.crop((0, 0, 20, 20)).convert("RGBA"), (11, 5))


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation, big_endian=False, kind="H", tags_before=1):
    """Returns EXIF data with an orientation after other tags, as in a segment of a JPEG."""
    order = ">" if big_endian else "<"
    fields = [struct.pack(f"{order}HHII", 0x9000 + n, 4, 1, 7) for n in range(tags_before)]
    number = {"H": 3, "I": 4}[kind]
    value = struct.pack(f"{order}{kind}", orientation).ljust(4, b"\0")
    fields.append(struct.pack(f"{order}HHI", 0x0112, number, 1) + value)
    head = (b"MM" if big_endian else b"II") + struct.pack(f"{order}HI", 42, 8)
    fields_and_end = b"".join(fields) + bytes(4)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(fields)) + fields_and_end


def bitmap(rows, bits, compression=0, masks=b"", width=None, top_down=False):
    """Returns a BMP made from rows of bytes without padding; colours depend on their numbers."""
    height = len(rows)
    data = b"".join(bytes(row).ljust((len(row) + 3) // 4 * 4, b"\0") for row in rows)
    header = struct.pack(
        "<IiiHHIIIIII",
        56 if masks else 40,
        width,
        -height if top_down else height,
        *(1, bits, compression, len(data), 0, 0, 0, 0),
    )
    if bits <= 8:
        masks = bytes((37 * n) % 256 for n in range(4 << bits))
    start = 14 + len(header) + len(masks)
    return struct.pack("<2sIII", b"BM", start + len(data), 0, start) + header + masks + data


def pillow_pixels(data):
    """Returns Pillow's pixels of a file: upright and on white."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
