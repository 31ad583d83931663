"""Images opened by Pillow: returns the pixels that the decoder would return for their files."""

import numpy as np
from PIL import Image

from align_keras.preprocessing.decoding import orientation


def pixels_of(picture: Image.Image, upright: bool = True) -> np.ndarray:
    """The pixels of an image, uint8, ``(height, width, 3)``, with transparent ones on white.

    Args:
        picture: image with at most 8 bits per channel.
        upright: whether to turn the image according to the EXIF orientation of its file.
    """
    picture.load()
    pixels = np.asarray(_on_white(picture))
    exif = picture.info.get("exif")
    if not upright or not isinstance(exif, bytes):
        return pixels
    return orientation.turn(pixels, orientation.of_exif(exif)).numpy()


def _on_white(picture):
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
