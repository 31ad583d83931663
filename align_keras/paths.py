"""Paths as users write them: the home folder, patterns, lists, addresses of other machines.

A setting that holds a path is marked with what may stand in it. Whoever reads flags calls
``PathMark.read`` on each; ``path_of`` makes an object of it, of this machine or another. Importing
this module loads neither TensorFlow nor Keras.
"""

import dataclasses
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import TypeAlias

from align_keras.errors import InputError, Place
from align_keras.remote_path import RemotePath

#: A file or folder, on this machine or on a file system of TensorFlow's.
AnyPath: TypeAlias = Path | RemotePath

#: Hubs from which keras-hub fetches models.
HUB_SCHEMES = ("hf", "kaggle", "modelscope")
# Schemes that TensorFlow cannot read; others are its plug-ins, or are reported as unknown
# once TensorFlow is loaded.
_WEB_SCHEMES = ("http", "https", "ftp")
#: Characters that TensorFlow and Python read as a pattern.
PATTERN_CHARACTERS = "*?[\\"
_TFDS = "tfds:"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme(path: str | os.PathLike[str] | RemotePath) -> str:
    """``gs`` of ``gs://BUCKET/FILE``; empty for a path on this machine."""
    found = _ADDRESS.match(_text(path))
    return found[1].lower() if found else ""


def is_remote(path: str | os.PathLike[str] | RemotePath) -> bool:
    """Whether it is on a file system of TensorFlow's: neither on this machine nor on a hub."""
    return scheme(path) not in ("", "file", *HUB_SCHEMES, *_WEB_SCHEMES)


def check_scheme(
    path: str | os.PathLike[str] | RemotePath, remote: bool = False, hubs: bool = False
) -> None:
    """Raises an InputError if a path is an address of a kind that is not supported.

    Args:
        path: as it was given.
        remote: whether it may be on a file system of TensorFlow's, such as ``gs://``.
        hubs: whether it may be on a hub of models.
    """
    found = scheme(path)
    if found in ("", "file") or (remote and is_remote(path)) or (hubs and found in HUB_SCHEMES):
        return
    others = (*(HUB_SCHEMES if hubs else ()), *(("gs",) if remote else ()))
    raise InputError(
        f"{found}:// is not supported here",
        Place(_text(path)),
        "give a path on this machine" + "".join(f" or {name}://..." for name in others),
    )


def path_of(path: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """A path as an object, on this machine or on a file system of TensorFlow's.

    Raises:
        InputError: if it is an address of another kind.
    """
    if isinstance(path, RemotePath):
        return path
    check_scheme(path, remote=True)
    return RemotePath(os.fspath(path)) if is_remote(path) else Path(without_file_scheme(path))


def local(path: str | os.PathLike[str] | RemotePath) -> Path:
    """A path on this machine; an InputError for an address, of which pathlib makes a folder."""
    check_scheme(path)
    return Path(without_file_scheme(_text(path)))


def without_file_scheme(path: str | os.PathLike[str]) -> str:
    """``/a`` of ``file:///a``; another path as it is."""
    text = os.fspath(path)
    return text[len("file://") :] if scheme(text) == "file" else text


def _text(path: str | os.PathLike[str] | RemotePath) -> str:
    return str(path) if isinstance(path, RemotePath) else os.fspath(path)


@dataclasses.dataclass(frozen=True)
class PathMark:
    """Marks a setting that holds a path, and says which addresses it may hold instead."""

    remote: bool = False
    """Whether it may be on a file system of TensorFlow's, such as ``gs://``."""
    hubs: bool = False
    """Whether it may be on a hub of models."""
    is_list: bool = False
    """Whether it may hold several paths, joined by commas, or ``tfds:NAME``."""

    def check(self, value: str) -> None:
        """Raises an InputError if it holds an address that is not supported."""
        for _, path in self._parts(value):
            check_scheme(path, self.remote, self.hubs)

    def remote_parts(self, value: str) -> list[str]:
        """Its parts that are on one of TensorFlow's file systems."""
        return [path for _, path in self._parts(value) if is_remote(path)]

    def read(self, value: str) -> str:
        """The value with the home folder in place of ``~``, and without ``file://``.

        A shell leaves ``~`` alone behind ``=``. As in a shell, that of an unknown user stays.

        Raises:
            InputError: as in ``check``.
        """
        self.check(value)
        return ",".join(
            start + os.path.expanduser(without_file_scheme(path))
            for start, path in self._parts(value)
        )

    def is_name(self, value: str) -> bool:
        """Whether it is a name, the same on every machine: of a hub, of TFDS or of a preset."""
        if self.is_list and value.startswith(_TFDS):
            return True
        return self.hubs and (scheme(value) in HUB_SCHEMES or (bool(value) and os.sep not in value))

    def _parts(self, value: str) -> list[tuple[str, str]]:
        """The paths, each with its prefix."""
        if not self.is_list:
            return [("", value)]
        is_tfds = value.startswith(_TFDS)
        parts = [value] if is_tfds else value.split(",")
        start = _TFDS if is_tfds else ""
        return [(start, part.removeprefix(start)) for part in parts]


#: A file or folder that must be on this machine.
LOCAL = PathMark()
#: A file or folder, on this machine or on a file system of TensorFlow's.
FILES = PathMark(remote=True)
#: Data: files, patterns of files, ``tfds:NAME``.
DATA = PathMark(remote=True, is_list=True)
#: A trained model: a folder, a name, or an address on a hub.
PRESET = PathMark(remote=True, hubs=True)


def is_plain(path: str | os.PathLike[str] | RemotePath) -> bool:
    """Whether a path has none of the characters that are taken for a pattern."""
    return not set(_text(path)) & set(PATTERN_CHARACTERS)


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


def absolute(address: str | os.PathLike[str] | RemotePath) -> str:
    """The absolute path of a local file or folder; a remote address without needless slashes."""
    if is_remote(address):
        return str(path_of(address))
    return _text(address) if scheme(address) else os.path.abspath(_text(address))


def file_name_of(address: str) -> str:
    """A name for files about a path or an address: its end, and a digest of the whole.

    ``hf://kakaobrain/align-base`` gives ``kakaobrain-align-base-4c1f0b7e``.
    """
    last = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(address.split("/")[-2:]))
    digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{last[:60].strip('-.')}-{digest[:8]}"
