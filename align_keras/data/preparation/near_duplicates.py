"""Near-duplicates of evaluation images among training images (sec. 3, app. A).

Two measures. A perceptual hash finds exact, rescaled and recompressed copies of an image. The
paper's own is a cosine above 0.975 between embeddings of an image model; it had to look for
candidates by clusters in 1.8 billion images, while here every image is compared with every
evaluation image, by matrix products.
"""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from align_keras.data import records
from align_keras.data.examples import packing

_SIDE = 32  # pixels that the hash sees
_LOW = 8  # lowest frequencies of each direction that it keeps
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def _cosines():
    """The first rows of the discrete cosine transform: ``(8, 32)``."""
    frequencies, places = np.arange(_LOW)[:, None], np.arange(_SIDE)[None] + 0.5
    return np.cos(math.pi / _SIDE * frequencies * places)


_COSINES = _cosines()


def perceptual_hash(encoded):
    """64 bits that copies of an image share but for a few.

    The signs of the lowest frequencies of a grey 32 x 32 copy, about their median, as in pHash.

    Args:
        encoded: the bytes of an image that decodes.

    Returns:
        A whole number below 2 ** 64.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        image.draft("L", (4 * _SIDE, 4 * _SIDE))
        grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = (_COSINES @ np.asarray(grey, "float64") @ _COSINES.T).ravel()
    # The mean brightness says nothing of what is shown, and would always be the largest.
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class EvaluationImages:
    """Finds the near-duplicates of a set of images.

    Args:
        images: the encoded evaluation images, a list of bytes.
        max_distance: bits in which hashes of copies may differ. At 4, all but 6 of 1,500 copies
            of photographs of 144 pixels and more, at half to twice the size and down to JPEG
            quality 30, were found, and none of 141,000 pairs of different ones was within 10; of
            product photographs of 60 x 80 pixels on white, one pair in 6,500 was within 4.
        preset: of an ``AlignDualEncoder`` whose image tower gives the embeddings; none if empty.
        max_cosine: above which two images are near-duplicates.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, images, max_distance=4, preset="", max_cosine=0.975):
        if not images:
            raise ValueError("--evaluation-images: there is no image that decodes")
        self.max_distance, self.max_cosine = max_distance, max_cosine
        self._hashes = np.unique(np.array([perceptual_hash(image) for image in images], "uint64"))
        self._preset, self._model = preset, None
        self._embeddings = self._encode(images) if preset else None

    def find(self, images):
        """Whether each of a list of encoded images is a near-duplicate: a list of bools."""
        found = [self._is_copy(perceptual_hash(image)) for image in images]
        if self._embeddings is None or not images:
            return found
        # One product for all the images of a window: (images, evaluation images).
        highest = (self._encode(images) @ self._embeddings.T).max(axis=1)
        return [copy or value > self.max_cosine for copy, value in zip(found, highest, strict=True)]

    def _is_copy(self, value):
        distances = np.bitwise_count(self._hashes ^ np.uint64(value))
        return bool(distances.min() <= self.max_distance)

    def _encode(self, images):
        if self._model is None:
            from align_keras.models.dual_encoder import AlignDualEncoder

            self._model = AlignDualEncoder.from_preset(self._preset)
        return np.asarray(self._model.encode_images(images))

    def __getstate__(self):
        """Without the model, which each worker of Beam loads for itself."""
        return {**self.__dict__, "_model": None}


def read_images(place):
    """The images of a folder, with those below it, or of shards; those that do not decode go.

    Args:
        place: a folder, or a pattern of TFRecord shards.

    Returns:
        A list of bytes.

    Raises:
        FileNotFoundError: if there is neither.
    """
    if Path(place).is_dir():
        paths = sorted(
            path for path in Path(place).rglob("*") if path.suffix.lower() in _EXTENSIONS
        )
        encoded = (path.read_bytes() for path in paths)
    else:
        shards = records.find_shards(place, "--evaluation-images")
        frames = (record for shard in shards for record in records.read_frames(shard))
        encoded = (_image_of(record) for record in frames if record is not None)
    # The same picture stands beside each of its captions.
    return [image for image in dict.fromkeys(encoded) if _decodes(image)]


def _image_of(record):
    try:
        return records.parse_pair(record).get("jpg", b"")
    except ValueError:
        return b""


def _decodes(image):
    try:
        packing.to_jpeg(image)
    except ValueError:
        return False
    return True
