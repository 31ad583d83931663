"""One image with its captions or class, from any source."""

import dataclasses
import math
from collections.abc import Callable

from align_keras.data import shard_names
from align_keras.data.paper_rules import has_words
from align_keras.errors import InputError, Place

#: Faults of records that cannot be read.
DAMAGED = (shard_names.CORRUPT, shard_names.NO_EXAMPLE)


@dataclasses.dataclass(frozen=True)
class Example:
    """One image with its captions or class, and what else the source states about it."""

    place: Place
    """The example's place in the user's data."""
    image_id: str
    """Identifies the image; several examples may share one image."""
    load: Callable[[], bytes]
    """Reads the encoded image; raises one of ``image_files.UNREADABLE``."""
    texts: tuple[object, ...] = ()
    """The values of the caption columns, in order, usable or not; see ``captions``."""
    label: int | None = None
    """Number of the class, from 0; None if the data has none."""
    class_name: str = ""
    """Name of the class; empty if the data has none."""
    size: tuple[int, int] | None = None
    """Original width and height on the web, if the source states them; the file may be smaller."""
    unsafe: object = None
    """Value of the field that marks unsafe content."""
    carried: dict[str, object] = dataclasses.field(default_factory=dict)
    """Fields to copy into the records."""
    fault: str | None = None
    """Why the example cannot be used; None if it can."""
    key: str = ""
    """Identifies the example within its source. The names of packed pairs derive from it."""
    found: tuple[str, ...] = ()
    """Names of the columns or fields, for messages; empty if there are none."""

    @property
    def is_damaged(self) -> bool:
        """Whether the record cannot be read, so that nothing is known about the example."""
        return self.fault in DAMAGED

    @property
    def captions(self) -> tuple[str, ...]:
        """The usable captions, unchanged."""
        return tuple(
            text for text in self.texts if isinstance(text, str) and caption_fault(text) is None
        )

    @property
    def queries(self) -> tuple[str, ...]:
        """The usable captions; raises InputError, with the place, if a caption is not text.

        Empty captions are left out, as in packing.
        """
        for text in self.texts:
            fault = caption_fault(text)
            is_there = text.is_there if isinstance(text, NoCaption) else True
            if is_there and fault not in (None, NO_CAPTION, EMPTY_CAPTION):
                raise InputError(str(fault), self.place)
        return self.captions

    def read_image(self) -> bytes:
        """The encoded image; raises InputError, with the place, if it cannot be read."""
        try:
            return self.load()
        except Exception as error:  # zip, file systems and archives raise errors of many kinds
            reason = str(error) or repr(error)
            raise InputError(f"image cannot be read ({reason})", self.place) from None


@dataclasses.dataclass(frozen=True)
class NoCaption:
    """Takes the place of captions that are missing, with the reason."""

    reason: str
    is_there: bool = False
    """Whether the field holds something that cannot be read."""


NO_CAPTION = "no caption"
EMPTY_CAPTION = "empty caption"
_KINDS = {
    bool: "caption is a boolean",
    int: "caption is a number",
    float: "caption is a number",
    list: "caption is a list",
    dict: "caption is an object",
}


def caption_fault(caption: object) -> str | None:
    """Why a caption cannot be used, or None. A caption without word pieces counts as empty."""
    if isinstance(caption, NoCaption):
        return caption.reason
    if is_absent(caption):
        return NO_CAPTION
    if isinstance(caption, bytes):
        is_utf8 = isinstance(decoded(caption), str)
        return "caption is bytes, not text" if is_utf8 else "caption is not UTF-8"
    if not isinstance(caption, str):
        return _KINDS.get(type(caption), f"caption is a {type(caption).__name__}")
    if storable(caption) != caption:
        return "caption contains a lone surrogate (half a character)"
    return None if has_words(caption) else EMPTY_CAPTION


def is_absent(value: object) -> bool:
    """Whether a field is absent. pandas writes NaN for an absent value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def decoded(value: object) -> object:
    """Bytes as text. Bytes that are not UTF-8 stay bytes and are later rejected as a caption."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def storable(text: str) -> str:
    """A text in which every character that UTF-8 cannot hold is escaped.

    Such characters occur in file names that are not UTF-8, and in JSON that cuts an emoji in two.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def as_text(value: object) -> str:
    """A field as text; empty if the field is absent, blank or of another type.

    A float without a fraction becomes an integer: pandas writes 7 as 7.0 if its column has gaps.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, float):
        return str(int(value) if value.is_integer() else value) if not is_absent(value) else ""
    return str(value) if isinstance(value, int) else ""


def as_id(value: object) -> str:
    """A field as an image id: 7, 7.0 and "7" are the same; empty if it is absent or a fraction.

    Floats of 2**24 and above are not ids either: shards round them to 24 bits.
    """
    is_number = not isinstance(value, float) or (value.is_integer() and abs(value) < 1 << 24)
    return as_text(value) if is_number else ""


def as_label(value: object) -> int | None:
    """A field as a class number, an integer from 0; None for anything else."""
    text = as_text(value).removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() else None
