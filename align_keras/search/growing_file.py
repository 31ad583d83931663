"""Files that grow over several runs, and are checked when a run continues them."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from align_keras import full_disk
from align_keras.checksums import Checksum
from align_keras.errors import InputError, Place


class GrowingFile:
    """Appends to a file and keeps the checksum of its entire content; a context manager.

    Args:
        path: path of the file, which need not exist.
        size: bytes that an earlier run committed; later bytes are cut off.
        sha256: checksum of these bytes; empty if unknown.
        remedy: what the user can do about a damaged file.

    Raises:
        InputError: if the file is shorter than ``size``, or its committed bytes have changed.
    """

    def __init__(self, path: Path, size: int = 0, sha256: str = "", remedy: str = "") -> None:
        self.path = path
        self._digest = hashlib.sha256()
        with path.open("a+b") as file:
            if file.tell() < size:
                raise InputError("shorter than when it was written", Place(str(path)), remedy)
            file.truncate(size)
            file.seek(0)
            while chunk := file.read(1 << 20):
                self._digest.update(chunk)
        if sha256 not in ("", self._digest.hexdigest()):
            problem = "damaged: its checksum has changed"
            raise InputError(problem, Place(str(path)), remedy)
        self.size = size
        # Unbuffered: with a buffer, a failed write would be repeated when the file is closed.
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def checksum(self) -> Checksum:
        """Checksum of everything written so far."""
        return Checksum(self.size, self._digest.hexdigest())

    def write(self, data: bytes) -> None:
        """Appends bytes.

        Raises:
            NoSpaceError: if the disk is full.
        """
        left = memoryview(data)
        with full_disk.reported(self.path):
            while left:
                left = left[self._file.write(left) :]
        self._digest.update(data)
        self.size += len(data)

    def sync(self) -> None:
        """Returns when the bytes are on the disk."""
        with full_disk.reported(self.path):
            os.fsync(self._file.fileno())


def read_progress(path: Path, remedy: str) -> dict[str, Any]:
    """The ``progress.json`` of an index: the sizes of its files when it was written.

    Raises:
        InputError: if it is damaged.
    """
    try:
        found = json.loads(path.read_bytes())
        found.setdefault("sha256", {})  # earlier versions had no checksums
        if found.keys() == {"origin", "rows", "unreadable", "sizes", "sha256"}:
            return found
    except (ValueError, AttributeError):
        pass
    raise InputError("damaged", Place(str(path)), remedy)
