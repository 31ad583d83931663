"""Search queries, and their limits."""

import dataclasses
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from align_keras.data.examples import image_files
from align_keras.errors import InputError, Place

MAX_CHARACTERS = 1_000


@dataclasses.dataclass(frozen=True)
class Query:
    """A search query: a sentence, an image, or an image modified by a sentence.

    A query with only ``without`` finds the images that are least similar to those words.
    """

    text: str = ""
    """A sentence."""
    image: bytes = b""
    """An encoded image."""
    text_weight: float = 2.0
    """Weight of the sentence relative to the image, 2 as in the paper. A negative weight subtracts.
    """
    without: str = ""
    """Words to subtract."""
    without_weight: float = 1.0
    """Weight of these words."""


def checked_texts(query: Query) -> tuple[str, str] | InputError:
    """The two sentences of a query, each on one line, or the error if the query is invalid."""
    try:
        text, without = clean_text(query.text), clean_text(query.without)
    except InputError as error:
        return error
    for weight in (query.text_weight, query.without_weight):
        if not abs(weight) <= 100:
            return InputError(f"a weight must be a number from -100 to 100, not {weight}")
    if not text and not query.image and not (without and query.without_weight > 0):
        remedy = "give a sentence, an image or words to take away"
        return InputError("nothing to look for", remedy=remedy)
    return text, without


def clean_text(text: str) -> str:
    """A text on one line, without outer white space; raises InputError if it is too long."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"a text has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    return " ".join(text.encode("utf-8", "replace").decode().split())


def read_image(path: str | Path) -> bytes:
    """The bytes of an image file for a query; raises InputError if it is no readable image."""
    try:
        image = image_files.read_file(path)
        # Reads only the header. The pixels are decoded when the model is there.
        with Image.open(io.BytesIO(image)):
            return image
    except UnidentifiedImageError:
        raise InputError("not an image in a supported format", Place(str(path))) from None
    except Image.DecompressionBombError:
        return image  # the decoder has its own limit
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(reason, Place(str(path))) from None
