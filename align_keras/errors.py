"""Errors in user input: its place, the problem found, and a remedy.

The library never knows which flag a value came from. It raises an ``InputError``. The code that
read the setting adds the setting's name with ``concerning``, and a command prints that name as a
flag.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator

_SETTING = re.compile(r"<([a-z_.]+)>")


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a user's data; empty fields are unknown or do not apply."""

    file: str = ""
    """Path of the table, shard, archive or image."""
    row: str = ""
    """The row or record in the file: ``line 3``, ``row 7`` or ``record 0``."""
    member: str = ""
    """The image that a row names, or a member of an archive."""
    column: str = ""
    """The column or field."""

    def __str__(self) -> str:
        """The place as text for a message: ``photos.csv line 3 (a.jpg), column caption``."""
        text = " ".join(filter(None, (self.file, self.row)))
        if self.member:
            text = f"{text} ({self.member})" if text else self.member
        return ", ".join(filter(None, (text, self.column and f"column {self.column}")))


class InputError(ValueError):
    """An input of the user cannot be used.

    Args:
        problem: what is wrong and what was found, such as ``no readable record in the shard``.
        place: the place in the user's data; None if the problem is not in a file.
        remedy: what the user can do. It may name settings as ``<batch_size>``.
        setting: the setting with the input, by the field name of a settings class. It is empty in
            the library, which does not know settings.

    All of these are attributes.
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
            name_of: returns the user's name of a setting; a command returns the flag.
        """
        remedy = with_names(self.remedy, name_of)
        parts = [name_of(self.setting) if self.setting else "", str(self.place or "")]
        where = "".join(f"{part}: " for part in parts if part)
        return where + "; ".join(filter(None, (self.problem, remedy)))

    def __str__(self) -> str:
        """The message, with the field names of settings."""
        return self.describe()


def with_names(text: str, name_of: Callable[[str], str] = str) -> str:
    """A text that names settings as ``<batch_size>``, with these replaced by ``name_of``."""
    return _SETTING.sub(lambda match: name_of(match[1]), text)


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder named by the user does not exist."""


class UnreachableError(InputError, OSError):
    """A remote file system, such as ``gs://``, cannot be reached or denies access."""


class NoSpaceError(InputError):
    """A disk is full, a quota is used up, or the limit on the size of a file is reached."""


class BackendError(InputError, ImportError):
    """Keras runs on another backend than TensorFlow."""


@contextlib.contextmanager
def concerning(setting: str) -> Iterator[None]:
    """Inside the block, an ``InputError`` without a setting gets this setting.

    Errors about a full disk get no setting, since no setting causes them.
    """
    try:
        yield
    except NoSpaceError:
        raise
    except InputError as error:
        error.setting = error.setting or setting
        raise
