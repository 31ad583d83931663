"""Checks whether data files have changed since they were opened."""

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from align_keras import paths
from align_keras.errors import InputError, Place
from align_keras.remote_path import RemotePath

#: Changes after which a file can no longer be read.
GONE, FOLDER = "is gone", "is a folder"


class FileState(NamedTuple):
    """Properties that distinguish versions of a file without reading the file."""

    size: int
    """Size in bytes."""
    modified: int
    """Time of the last write, in nanoseconds."""
    identity: tuple[int, ...] = ()
    """Device and inode of a local file."""


_NOTHING, _FOLDER = FileState(-1, 0), FileState(-2, 0)


class WatchedFiles:
    """Files, and the changes found in them since they were opened.

    Args:
        files: paths of the files.
        holds_the_same: whether a file that was rewritten with the same size, for example touched or
            restored from a copy, still has the same content.
    """

    def __init__(
        self, files: Iterable[str], holds_the_same: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._states = {file: _state_of(file) for file in files}
        self._holds_the_same = holds_the_same
        self._local = [file for file in self._states if not paths.scheme(file)]
        self._turns: Iterator[str] = itertools.cycle(self._local)
        self._changes: dict[str, str] = {}

    def _look_at(self, file: str) -> str:
        """How a file has changed, such as ``is gone``; empty if it has not changed.

        A change that was found once is remembered.
        """
        before, now = self._states.get(file), _state_of(file)
        if file in self._changes or before in (None, now) or now is None:
            return self._changes.get(file, "")
        if now in (_NOTHING, _FOLDER):
            self._changes[file] = GONE if now == _NOTHING else FOLDER
        elif now.size != before.size:
            self._changes[file] = f"has {now.size:,} bytes, not {before.size:,},"
        elif self._holds_the_same(file):
            self._states[file] = now
        else:
            self._changes[file] = "was rewritten"
        return self._changes.get(file, "")

    def size_of(self, file: str) -> int:
        """Size of a file in bytes; 0 if it is unknown."""
        state = self._states[file]
        return max(state.size, 0) if state else 0

    def look(self, most: int | None = None) -> dict[str, str]:
        """Checks files in turn.

        Args:
            most: maximum number of files to check, all on this machine, since remote files take
                long. None checks all files, including remote ones.

        Returns:
            All changes found so far, by file.
        """
        turns = itertools.islice(self._turns, min(most or 0, len(self._local)))
        for file in turns if most is not None else self._states:
            self._look_at(file)
        return dict(self._changes)

    def check(self) -> None:
        """Raises InputError, with the place, if a file has changed since it was opened."""
        for file, change in sorted(self.look().items()):
            raise InputError(f"{change} since the run opened it", Place(file), "restore it")


def _state_of(file: str) -> FileState | None:
    """The state of a file; None if it is unknown, for example while the network is down."""
    try:
        if paths.scheme(file):
            remote = RemotePath(file).stat()
            return FileState(remote.st_size, remote.st_mtime_ns)
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return _NOTHING
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return _FOLDER
    return FileState(found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino))
