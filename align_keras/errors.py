"""Errors in user input: its place, the problem found, and a remedy.

The library never knows by which flag a value came. It raises an ``InputError``; whoever read the
setting adds its name with ``concerning``, and a command prints that name as a flag, once.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator

_SETTING = re.compile(r"<([a-z_.]+)>")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something stands in a user's data; empty fields are unknown or do not apply."""

    file: str = ""
    """Path of the table, shard, archive or image."""
    row: str = ""
    """The row or record in the file: ``line 3``, ``row 7`` or ``record 0``."""
    member: str = ""
    """The image that a row names, or a member of an archive."""
    column: str = ""
    """The column or field."""

    def __str__(self) -> str:
        """As a message shows it: ``photos.csv line 3 (a.jpg), column caption``."""
        text = " ".join(filter(None, (self.file, self.row)))
        if self.member:
            text = f"{text} ({self.member})" if text else self.member
        return ", ".join(filter(None, (text, self.column and f"column {self.column}")))


class InputError(ValueError):
    """Something that a user gave cannot be used.

    Args:
        problem: what is wrong and what was found, such as ``no readable record in it``.
        place: where in the user's data; None where it is in no file.
        remedy: what to do about it. It may name settings as ``<batch_size>``.
        setting: the setting that gave it, as the field of a settings class is called; empty in
            the library, which does not know it.

    All of them are attributes.
    """

    def __init__(
        self, problem: str, place: Place | None = None, remedy: str = "", setting: str = ""
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place
        self.remedy = remedy
        self.setting = setting

    def describe(self, name_of: Callable[[str], str] = str) -> str:
        """The message in one line.

        Args:
            name_of: how a setting is called where the message is read; a command names its flag.
        """
        remedy = with_names(self.remedy, name_of)
        parts = [name_of(self.setting) if self.setting else "", str(self.place or "")]
        where = "".join(f"{part}: " for part in parts if part)
        return where + "; ".join(filter(None, (self.problem, remedy)))

    def __str__(self) -> str:
        """The message, with settings by their names."""
        return self.describe()


def with_names(text: str, name_of: Callable[[str], str] = str) -> str:
    """A text that names settings as ``<batch_size>``, with what ``name_of`` calls them."""
    return _SETTING.sub(lambda match: name_of(match[1]), text)


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that a user named is not there."""


class UnreachableError(InputError, OSError):
    """A file system of TensorFlow's, such as ``gs://``, cannot be reached or refuses access."""


class NoSpaceError(InputError):
    """A disk is full, a quota is used up, or a file may not grow any more."""


class BackendError(InputError, ImportError):
    """Keras runs on another backend than TensorFlow."""


@contextlib.contextmanager
def concerning(setting: str) -> Iterator[None]:
    """Inside, an ``InputError`` without a setting gets this one.

    Errors about a full disk stay without: no setting causes them.
    """
    try:
        yield
    except NoSpaceError:
        raise
    except InputError as error:
        error.setting = error.setting or setting
        raise
