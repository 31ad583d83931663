"""One image with its captions or class, wherever it was read from."""

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
    found: tuple[str, ...] = ()
    """The names of its columns or fields, for messages; empty if it has none."""

    @property
    def is_damaged(self) -> bool:
        """Whether nothing is known of it, of a record that cannot be read."""
        return self.fault in DAMAGED

    @property
    def captions(self) -> tuple[str, ...]:
        """The usable captions, unchanged."""
        return tuple(
            text for text in self.texts if isinstance(text, str) and caption_fault(text) is None
        )

    @property
    def queries(self) -> tuple[str, ...]:
        """The usable captions; InputError, with the place, on one that is there but is not text.

        Empty captions are left out, as in packing.
        """
        for text in self.texts:
            fault = caption_fault(text)
            is_there = text.is_there if isinstance(text, NoCaption) else True
            if is_there and fault not in (None, NO_CAPTION, EMPTY_CAPTION):
                raise InputError(str(fault), self.place)
        return self.captions

    def read_image(self) -> bytes:
        """The encoded image; InputError with its place if it cannot be read."""
        try:
            return self.load()
        except Exception as error:  # zip, file systems and archives have errors of all kinds
            reason = str(error) or repr(error)
            raise InputError(f"image cannot be read ({reason})", self.place) from None


@dataclasses.dataclass(frozen=True)
class NoCaption:
    """Takes the place of captions that are missing, with the reason."""

    reason: str
    is_there: bool = False
    """Whether something exists there but cannot be read."""


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
    """Whether a field is absent: NaN is what pandas writes for an absent value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def decoded(value: object) -> object:
    """Bytes as text. Bytes that are not UTF-8 stay bytes, and are then refused as a caption."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def storable(text: str) -> str:
    """A text with every character escaped that UTF-8 cannot hold.

    Names of files that are not UTF-8, and JSON that cuts an emoji in two, have such letters.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def as_text(value: object) -> str:
    """A field as text; empty if it is absent, blank or of another kind.

    pandas writes whole numbers as fractions where one of a column is absent.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, float):
        return str(int(value) if value.is_integer() else value) if not is_absent(value) else ""
    return str(value) if isinstance(value, int) else ""


def as_id(value: object) -> str:
    """A field as an image's id: 7, 7.0 and "7" are the same; empty if it is absent or 1.5.

    Large fractions are no ids either: in shards they are rounded to 24 bits.
    """
    is_number = not isinstance(value, float) or (value.is_integer() and abs(value) < 1 << 24)
    return as_text(value) if is_number else ""


def as_label(value: object) -> int | None:
    """A field as the number of a class, whole and from 0; None for anything else."""
    text = as_text(value).removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() else None
