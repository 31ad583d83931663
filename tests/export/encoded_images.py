"""Encoded images for tests of exported models."""

import io

import numpy as np
from PIL import Image


def image_bytes(format="JPEG", size=(40, 30), mode="RGB", seed=0, **options):
    channels = 4 if mode in ("RGBA", "LA") else 3
    shape = (size[1], size[0], channels)
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()
