"""Text files that grow by lines, on this machine and where files cannot grow."""

import os
import time
from pathlib import Path

from align_keras import uploads
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath

# A remote file is rewritten as a whole. The interval between two writes is chosen so that at most
# this many bytes per second go over the network, and is at least this many seconds.
_BYTES_A_SECOND = 16_384
_LEAST_SECONDS = 10.0


class LineFile:
    """A file that one process at a time appends lines to.

    On this machine a line is on the disk when ``append`` returns. An object of a store cannot grow:
    there the lines are kept in memory, and the object is written again once in a while and by
    ``flush``; a killed process loses the lines since. What that costs is bounded: at most 16 KiB a
    second, once in ten seconds, and one writing for each ``flush``.

    Args:
        path: path of the file, which need not exist.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self._lines: list[str] | None = None
        self._is_written = True
        self._due = 0.0

    def append(self, line: str) -> bool:
        """Appends a line; returns whether the file has it already."""
        if not isinstance(self.path, RemotePath):
            append_line(self.path, line)
            return True
        if self._lines is None:
            text = self.path.read_text() if self.path.is_file() else ""
            self._lines = text.removesuffix("\n").split("\n") if text else []
        self._lines.append(line)
        self._is_written = False
        if time.monotonic() >= self._due:
            self.flush()
        return self._is_written

    def flush(self) -> None:
        """Writes what is not in the file yet."""
        if self._is_written or not isinstance(self.path, RemotePath):
            return
        text = "\n".join([*(self._lines or []), ""])
        uploads.write(self.path, text)
        self._is_written = True
        self._due = time.monotonic() + max(_LEAST_SECONDS, len(text) / _BYTES_A_SECOND)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a local file; one that a killed process has left torn does not touch it."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = f"\n{line}"
        # In one write, so that a kill tears no line that fits into a block.
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
