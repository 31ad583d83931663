"""Near-duplicates of evaluation images among training images (sec. 3, app. A).

There are two measures. A perceptual hash finds exact, rescaled and recompressed copies of an image.
The paper's measure is a cosine above 0.975 between embeddings of an image model. The paper searched
1.8 billion images for candidates by clustering. Here every image is compared with every evaluation
image, by matrix products.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from align_keras import progress
from align_keras.data import paper_rules
from align_keras.data.examples import ExampleSet
from align_keras.data.examples.image_files import UNREADABLE
from align_keras.data.preparation import encoding
from align_keras.errors import InputError, concerning
from align_keras.preprocessing.decoding.decoder import decode_pixels
from align_keras.preprocessing.decoding.faults import ImageFaultError
from align_keras.preprocessing.thumbnails import make_thumbnail
from align_keras.wording import counted

logger = logging.getLogger(__name__)

#: Pictures in a report: longer side in pixels, and JPEG quality.
THUMBNAIL, THUMBNAIL_QUALITY = 96, 75
_SIDE = 32  # side of the image for the hash, in pixels
_LOW = 8  # number of lowest frequencies that the hash keeps, in each direction


def _cosines() -> np.ndarray:
    """The first rows of the discrete cosine transform: ``(8, 32)``."""
    frequencies, places = np.arange(_LOW)[:, None], np.arange(_SIDE)[None] + 0.5
    return np.cos(math.pi / _SIDE * frequencies * places)


_COSINES = _cosines()


def perceptual_hash(encoded: bytes) -> int:
    """A 64-bit perceptual hash; the hashes of copies of an image differ in a few bits.

    As in pHash, each bit states whether one of the lowest frequencies of a grey 32 x 32 copy is
    above their median.

    Args:
        encoded: an encoded image that can be decoded.

    Returns:
        An integer below 2 ** 64.
    """
    image = Image.fromarray(decode_pixels(encoded))
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    low = (_COSINES @ np.asarray(grey, "float64") @ _COSINES.T).ravel()
    # The mean brightness does not describe the content, and would always be the largest value.
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class EvaluationImages:
    """Finds the near-duplicates of a set of images.

    Args:
        images: the encoded evaluation images.
        max_distance: maximum number of different bits between the hashes of copies. At 4, all but 6
            of 1,500 copies were found: copies of photographs of 144 pixels and more, at half to
            twice the size and down to JPEG quality 30. None of 141,000 pairs of different
            photographs was within 10. For product photographs of 60 x 80 pixels on white, one pair
            in 6,500 was within 4.
        preset: an ``AlignDualEncoder`` whose image tower gives the embeddings; empty for none.
        max_cosine: images are near-duplicates if the cosine of their embeddings is above this.

    Raises:
        InputError: if ``images`` is empty, or the preset does not load.
    """

    def __init__(
        self,
        images: Sequence[bytes],
        max_distance: int = 4,
        preset: str = "",
        max_cosine: float = paper_rules.MAX_COSINE,
    ) -> None:
        if not images:
            raise InputError("none of the images decodes")
        self.max_distance, self.max_cosine = max_distance, max_cosine
        watched = progress.watch(images, "hashing evaluation images", "image", len(images))
        self._hashes = np.array([perceptual_hash(image) for image in watched], "uint64")
        # For the report. The images themselves would have to be sent to each Beam worker.
        self._thumbnails = [make_thumbnail(image, THUMBNAIL, THUMBNAIL_QUALITY) for image in images]
        self._preset = preset
        self._model: Any = None
        self._embeddings = self._encode(images) if preset else None

    def find(self, images: Sequence[bytes]) -> list[int | None]:
        """Finds images that are near-duplicates of an evaluation image.

        Returns:
            For each near-duplicate, the index of the nearest evaluation image, by the hash or else
            by the embeddings; None for every other image.
        """
        found = [self._copied(perceptual_hash(image)) for image in images]
        if self._embeddings is None or not images:
            return found
        # One matrix product for all images of a window: (images, evaluation images).
        cosines = self._encode(images) @ self._embeddings.T
        nearest = cosines.argmax(axis=1)
        for row, place in enumerate(nearest):
            if found[row] is None and cosines[row, place] > self.max_cosine:
                found[row] = int(place)
        return found

    def thumbnail(self, place: int) -> bytes:
        """A small JPEG of an evaluation image, given its index from ``find``."""
        return self._thumbnails[place]

    def _copied(self, value: int) -> int | None:
        distances = np.bitwise_count(self._hashes ^ np.uint64(value))
        nearest = int(distances.argmin())
        return nearest if distances[nearest] <= self.max_distance else None

    def _encode(self, images: Sequence[bytes]) -> np.ndarray:
        if self._model is None:
            from align_keras.models.dual_encoder import AlignDualEncoder

            with concerning("near_duplicate_model"):
                self._model = AlignDualEncoder.from_preset(self._preset)
        return np.asarray(self._model.encode_images(images))

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the model: each Beam worker loads it itself."""
        return {**self.__dict__, "_model": None}


def decodable_images(examples: ExampleSet) -> list[bytes]:
    """The distinct images of a set as JPEG, without those that cannot be read or decoded.

    The log states how many could not be read. Their near-duplicates stay in the training data.
    """
    found: dict[bytes, None] = {}
    lost = 0
    found_all = itertools.chain.from_iterable(map(examples.read, examples.parts))
    for example in progress.watch(found_all, "reading evaluation images", "image"):
        try:
            # A picture occurs once for each of its captions.
            found.setdefault(example.load())
        except UNREADABLE:
            lost += 1
    images = []
    for image in found:
        try:
            # Training images are converted to JPEG as well.
            images.append(encoding.to_jpeg(image))
        except ImageFaultError:
            lost += 1
    if lost:
        unreadable = counted(lost, "unreadable evaluation image")
        logger.warning("%s; their near-duplicates are not dropped", unreadable)
    return images
