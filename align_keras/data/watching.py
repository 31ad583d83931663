"""Whether files of data are still those that they were when they were opened."""

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from align_keras import paths
from align_keras.errors import InputError, Place
from align_keras.remote_path import RemotePath

#: Changes after which nothing more is read from a file.
GONE, FOLDER = "is gone", "is a folder"


class FileState(NamedTuple):
    """Properties that distinguish versions of a file without reading it."""

    size: int
    """Bytes."""
    modified: int
    """When it was last written: nanoseconds."""
    identity: tuple[int, ...] = ()
    """Device and inode of a local file."""


_NOTHING, _FOLDER = FileState(-1, 0), FileState(-2, 0)


class WatchedFiles:
    """Files and how they have changed since they were opened, as far as that was looked at.

    Args:
        files: paths.
        holds_the_same: whether a file of the same size that was written again, such as touched or
            put back from a copy, has what it had.
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
        """How a file has changed, such as ``is gone``; empty if it has not.

        A change that was found stays found.
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
        """Bytes of a file; 0 if it could not be found out."""
        state = self._states[file]
        return max(state.size, 0) if state else 0

    def look(self, most: int | None = None) -> dict[str, str]:
        """Looks at files in turn.

        Args:
            most: how many to look at, of those on this machine: others take long to ask about.
                None for all, wherever they are.

        Returns:
            All changes so far, by file.
        """
        turns = itertools.islice(self._turns, min(most or 0, len(self._local)))
        for file in turns if most is not None else self._states:
            self._look_at(file)
        return dict(self._changes)

    def check(self) -> None:
        """Raises InputError, with the place, if a file is not what was opened."""
        for file, change in sorted(self.look().items()):
            raise InputError(f"{change} since the run opened it", Place(file), "restore it")


def _state_of(file: str) -> FileState | None:
    """The state of a file; None if it cannot be found out, as while a network is down."""
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
