"""One image with its captions or class, wherever it was read from."""

import dataclasses
import math
from collections.abc import Callable

from align_keras.data.paper_rules import has_words
from align_keras.errors import InputError, Place


@dataclasses.dataclass(frozen=True)
class Example:
    """One image with what the data says about it."""

    place: Place
    """Where it stands in the user's data."""
    image_id: str
    """Examples of the same image share it."""
    load: Callable[[], bytes]
    """Reads the encoded image; raises one of ``image_files.UNREADABLE``."""
    texts: tuple[object, ...] = ()
    """What stands where captions are expected, in order; see ``captions``."""
    label: int | None = None
    """Number of its class, from 0; None if the data has none."""
    class_name: str = ""
    """Name of its class; empty if the data has none."""
    size: tuple[int, int] | None = None
    """Width and height on the web, where the source names them: the file may be a smaller copy."""
    unsafe: object = None
    """Value of the field that marks unsafe content."""
    carried: dict[str, object] = dataclasses.field(default_factory=dict)
    """Fields to copy into the records."""
    fault: str | None = None
    """Why it cannot be used; None if it can."""
    key: str = ""
    """Tells it from every other example of its source; the names of packed pairs come from it."""

    @property
    def captions(self) -> tuple[str, ...]:
        """The usable captions, unchanged."""
        return tuple(
            text for text in self.texts if isinstance(text, str) and caption_fault(text) is None
        )

    def read_image(self) -> bytes:
        """The encoded image; InputError with its place if it cannot be read."""
        try:
            return self.load()
        except Exception as error:  # zip, file systems and archives have errors of all kinds
            raise InputError(f"image cannot be read ({error!r})", self.place) from None


def caption_fault(caption: object) -> str | None:
    """Why a caption cannot be used, or None. A caption without word pieces counts as empty."""
    if not isinstance(caption, str):
        return "no caption"
    return None if has_words(caption) else "empty caption"


def as_text(value: object) -> str:
    """A field as text; empty if it is absent, blank or of another kind.

    NaN is what pandas writes for an absent value.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, float):
        return "" if math.isnan(value) else str(value)
    return str(value) if isinstance(value, int) else ""


def as_id(value: object) -> str:
    """A field as an image's id: 7 and "7" are the same; empty if it is absent or a fraction."""
    return "" if isinstance(value, float) else as_text(value)


def as_label(value: object) -> int | None:
    """A field as the number of a class, whole and from 0; None for anything else."""
    text = as_text(value)
    return int(text) if text.isascii() and text.isdigit() else None
