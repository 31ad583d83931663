"""Paths as users write them: the home folder, patterns, lists, addresses of other machines.

A setting that holds a path is marked with what may stand in it. Whoever reads flags calls
``PathMark.read`` on each; importing this module loads neither TensorFlow nor Keras.
"""

import dataclasses
import glob
import hashlib
import os
import re
from pathlib import Path

from align_keras.errors import InputError, Place

#: File systems that TensorFlow brings beside the local one.
TENSORFLOW_SCHEMES = ("gs", "ram", "file")
#: Hubs from which keras-hub fetches models.
HUB_SCHEMES = ("hf", "kaggle", "modelscope")
#: Characters that TensorFlow and Python take for a pattern.
PATTERN_CHARACTERS = "*?[\\"
_TFDS = "tfds:"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme(path: str | os.PathLike[str]) -> str:
    """``gs`` of ``gs://BUCKET/FILE``; empty for a path on this machine."""
    found = _ADDRESS.match(os.fspath(path))
    return found[1].lower() if found else ""


def check_scheme(path: str | os.PathLike[str], supported: tuple[str, ...] = ()) -> None:
    """Raises an InputError if a path is an address of a kind that is not supported."""
    found = scheme(path)
    if found and found not in supported:
        others = "".join(f" or {name}://..." for name in supported if name not in ("ram", "file"))
        raise InputError(
            f"{found}:// is not supported here",
            Place(os.fspath(path)),
            f"give a path on this machine{others}",
        )


def local(path: str | os.PathLike[str]) -> Path:
    """A path on this machine; an InputError for an address, of which pathlib makes a folder."""
    check_scheme(path)
    return Path(path)


@dataclasses.dataclass(frozen=True)
class PathMark:
    """Marks a setting that holds a path, and says which addresses it may hold instead."""

    schemes: tuple[str, ...] = ()
    is_list: bool = False
    """Whether it may hold several paths, joined by commas, or ``tfds:NAME``."""

    def check(self, value: str) -> None:
        """Raises an InputError if it holds an address that is not supported."""
        for _, path in self._parts(value):
            check_scheme(path, self.schemes)

    def read(self, value: str) -> str:
        """The value with the home folder in place of ``~``.

        A shell leaves it alone behind ``=``. As in a shell, ``~`` of an unknown user stays.

        Raises:
            InputError: as ``check``.
        """
        self.check(value)
        return ",".join(start + os.path.expanduser(path) for start, path in self._parts(value))

    def is_name(self, value: str) -> bool:
        """Whether it is a name, the same on every machine: of a hub, of TFDS or of a preset."""
        if self.is_list and value.startswith(_TFDS):
            return True
        is_known = set(HUB_SCHEMES) <= set(self.schemes)
        return is_known and (scheme(value) in HUB_SCHEMES or (bool(value) and os.sep not in value))

    def _parts(self, value: str) -> list[tuple[str, str]]:
        """The paths, each with its prefix."""
        if not self.is_list:
            return [("", value)]
        is_tfds = value.startswith(_TFDS)
        parts = [value] if is_tfds else value.split(",")
        start = _TFDS if is_tfds else ""
        return [(start, part.removeprefix(start)) for part in parts]


#: A file or folder on this machine.
LOCAL = PathMark()
#: A file that is read, or files that are written, through TensorFlow's file systems.
FILES = PathMark(TENSORFLOW_SCHEMES)
#: Data: files, patterns of files, ``tfds:NAME``.
DATA = PathMark(TENSORFLOW_SCHEMES, is_list=True)
#: A trained model: a folder, a name, or an address on a hub.
PRESET = PathMark((*HUB_SCHEMES, *TENSORFLOW_SCHEMES))


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether a path has none of the characters that are taken for a pattern."""
    return not set(os.fspath(path)) & set(PATTERN_CHARACTERS)


def matching(pattern: str) -> list[str]:
    """The local files and folders of a pattern, in no order.

    What exists as it is written is taken literally: the whole, or else the folders that it begins
    with. Brackets in the rest are literal too if anything is called so.
    """
    if os.path.lexists(pattern):
        return [pattern]
    ends = [place + 1 for place, letter in enumerate(pattern) if letter == os.sep]
    start = next((end for end in reversed(ends) if os.path.isdir(pattern[:end])), 0)
    folder, rest = glob.escape(pattern[:start]), pattern[start:]
    return glob.glob(folder + literal_brackets(rest)) or glob.glob(folder + rest)


def literal_brackets(pattern: str) -> str:
    """A pattern in which brackets stand for themselves."""
    return pattern.replace("[", "[[]")


def absolute(address: str) -> str:
    """The whole path of what is on this machine; another address as it is."""
    return address if scheme(address) else os.path.abspath(address)


def file_name_of(address: str) -> str:
    """A name for files about a path or an address: its end, and a digest of the whole.

    ``hf://kakaobrain/align-base`` gives ``kakaobrain-align-base-4c1f0b7e``.
    """
    last = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(address.split("/")[-2:]))
    digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{last[:60].strip('-.')}-{digest[:8]}"
