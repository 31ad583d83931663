"""Paths as users write them: home folder, patterns, lists and remote addresses.

A setting that holds a path is marked with the kinds of paths it accepts. The code that reads flags
calls ``PathMark.read`` for each. ``path_of`` converts a path to an object for a local or remote
path. Importing this module loads neither TensorFlow nor Keras.
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

#: A file or folder, local or on a remote file system of TensorFlow.
AnyPath: TypeAlias = Path | RemotePath

#: Hubs from which keras-hub downloads models.
HUB_SCHEMES = ("hf", "kaggle", "modelscope")
# Schemes that TensorFlow cannot read. All other schemes belong to its plug-ins, or are reported as
# unknown after TensorFlow has loaded.
_WEB_SCHEMES = ("http", "https", "ftp")
#: Characters that TensorFlow and Python read as a pattern.
PATTERN_CHARACTERS = "*?[\\"
_TFDS = "tfds:"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme(path: str | os.PathLike[str] | RemotePath) -> str:
    """``gs`` for ``gs://BUCKET/FILE``; empty for a local path."""
    found = _ADDRESS.match(_text(path))
    return found[1].lower() if found else ""


def is_remote(path: str | os.PathLike[str] | RemotePath) -> bool:
    """Whether a path is on a remote file system of TensorFlow, neither local nor on a hub."""
    return scheme(path) not in ("", "file", *HUB_SCHEMES, *_WEB_SCHEMES)


def check_scheme(
    path: str | os.PathLike[str] | RemotePath, remote: bool = False, hubs: bool = False
) -> None:
    """Raises an InputError if a path is an address of an unsupported kind.

    Args:
        path: the path as given.
        remote: whether it may be on a remote file system of TensorFlow, such as ``gs://``.
        hubs: whether it may be on a model hub.
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
    """A path as an object, local or on a remote file system of TensorFlow.

    Raises:
        InputError: if it is an address of another kind.
    """
    if isinstance(path, RemotePath):
        return path
    check_scheme(path, remote=True)
    return RemotePath(os.fspath(path)) if is_remote(path) else Path(without_file_scheme(path))


def local(path: str | os.PathLike[str] | RemotePath) -> Path:
    """A local path; raises an InputError for an address, which pathlib would take for a folder."""
    check_scheme(path)
    return Path(without_file_scheme(_text(path)))


def without_file_scheme(path: str | os.PathLike[str]) -> str:
    """``/a`` for ``file:///a``; any other path unchanged."""
    text = os.fspath(path)
    return text[len("file://") :] if scheme(text) == "file" else text


def _text(path: str | os.PathLike[str] | RemotePath) -> str:
    return str(path) if isinstance(path, RemotePath) else os.fspath(path)


@dataclasses.dataclass(frozen=True)
class PathMark:
    """Marks a setting that holds a path, and states which addresses it accepts."""

    remote: bool = False
    """Whether it may be on a remote file system of TensorFlow, such as ``gs://``."""
    hubs: bool = False
    """Whether it may be on a model hub."""
    is_list: bool = False
    """Whether it may hold several paths, joined by commas, or ``tfds:NAME``."""

    def check(self, value: str) -> None:
        """Raises an InputError if the value holds an unsupported address."""
        for _, path in self._parts(value):
            check_scheme(path, self.remote, self.hubs)

    def remote_parts(self, value: str) -> list[str]:
        """The parts of the value that are on remote file systems."""
        return [path for _, path in self._parts(value) if is_remote(path)]

    def read(self, value: str) -> str:
        """The value with ``~`` replaced by the home folder, and without ``file://``.

        A shell does not expand ``~`` after ``=``. As in a shell, the ``~`` of an unknown user is
        kept.

        Raises:
            InputError: as in ``check``.
        """
        self.check(value)
        return ",".join(
            start + os.path.expanduser(without_file_scheme(path))
            for start, path in self._parts(value)
        )

    def is_name(self, value: str) -> bool:
        """Whether the value is a name that is the same on every machine.

        Such names are those on a hub, in TFDS, and of presets.
        """
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


#: A file or folder that must be local.
LOCAL = PathMark()
#: A file or folder, local or on a remote file system of TensorFlow.
FILES = PathMark(remote=True)
#: Data: files, patterns of files, ``tfds:NAME``.
DATA = PathMark(remote=True, is_list=True)
#: A trained model: a folder, a name, or an address on a hub.
PRESET = PathMark(remote=True, hubs=True)


def is_plain(path: str | os.PathLike[str] | RemotePath) -> bool:
    """Whether a path has no pattern characters."""
    return not set(_text(path)) & set(PATTERN_CHARACTERS)


def matching(pattern: str) -> list[str]:
    """The local files and folders that match a pattern, unordered.

    Existing paths are taken literally: the entire pattern if it exists, otherwise the existing
    folders at its start. Brackets in the rest are also taken literally, if that gives a match.
    """
    if os.path.lexists(pattern):
        return [pattern]
    ends = [place + 1 for place, letter in enumerate(pattern) if letter == os.sep]
    start = next((end for end in reversed(ends) if os.path.isdir(pattern[:end])), 0)
    folder, rest = glob.escape(pattern[:start]), pattern[start:]
    return glob.glob(folder + literal_brackets(rest)) or glob.glob(folder + rest)


def literal_brackets(pattern: str) -> str:
    """A pattern in which brackets match themselves."""
    return pattern.replace("[", "[[]")


def absolute(address: str | os.PathLike[str] | RemotePath) -> str:
    """The absolute form of a local path; a remote address without superfluous slashes."""
    if is_remote(address):
        return str(path_of(address))
    return _text(address) if scheme(address) else os.path.abspath(_text(address))


def file_name_of(address: str) -> str:
    """A file name for a path or an address: its end, and a digest of all of it.

    ``hf://kakaobrain/align-base`` gives ``kakaobrain-align-base-4c1f0b7e``.
    """
    last = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(address.split("/")[-2:]))
    digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{last[:60].strip('-.')}-{digest[:8]}"
