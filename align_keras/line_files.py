"""Text files that grow line by line, locally and on storage where files cannot grow."""

import os
import time
from pathlib import Path

from align_keras import uploads
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath

# A remote file is rewritten completely each time. The interval between two writes is at least this
# many seconds, and long enough that the network carries at most this many bytes per second.
_BYTES_A_SECOND = 16_384
_LEAST_SECONDS = 10.0


class LineFile:
    """A file to which a single process appends lines.

    A local file has the line on disk when ``append`` returns. Objects in a store cannot grow. Their
    lines are kept in memory, and the object is rewritten from time to time and by ``flush``; a
    killed process loses the lines since then. The cost is limited to 16 KiB per second and one
    write in ten seconds, plus one write for each ``flush``.

    Args:
        path: path of the file, which need not exist.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self._lines: list[str] | None = None
        self._is_written = True
        self._due = 0.0

    def append(self, line: str) -> bool:
        """Appends a line; returns whether the file already contains it."""
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
        """Writes the lines that are not yet in the file."""
        if self._is_written or not isinstance(self.path, RemotePath):
            return
        text = "\n".join([*(self._lines or []), ""])
        uploads.write(self.path, text)
        self._is_written = True
        self._due = time.monotonic() + max(_LEAST_SECONDS, len(text) / _BYTES_A_SECOND)


def append_line(path: Path, line: str) -> None:
    """Appends a line to a local file, separate from an incomplete line of a killed process."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = f"\n{line}"
        # In a single write, so that a kill cannot cut a line that fits into a block.
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
