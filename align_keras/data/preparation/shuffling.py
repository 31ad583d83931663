"""Sorts records by their keys on disk: a shuffle of any size in little memory."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from align_keras import full_disk

_HEADER = struct.Struct("<8sI")


class RecordSorter:
    """Takes records in any order and returns them sorted by key; a context manager.

    Records are written to files by the first two digits of their keys. For one file at a time, the
    keys and places are sorted in memory, and the records are read in that order.

    Args:
        directory: an existing folder for the files; the caller must remove it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> "RecordSorter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            # Closing fails as well if the disk is full.
            with contextlib.suppress(OSError):
                file.close()

    def add(self, key: str, record: bytes) -> None:
        """Adds a record under a key of 16 hexadecimal digits.

        Raises:
            NoSpaceError: if the disk is full.
        """
        bucket = key[:2]
        if bucket not in self._files:
            self._files[bucket] = (self._directory / f"records-{bucket}").open("w+b")
        with full_disk.reported(self._directory / f"records-{bucket}"):
            self._files[bucket].write(_HEADER.pack(bytes.fromhex(key), len(record)) + record)

    def sorted_records(self) -> Iterator[bytes]:
        """Yields the records in the order of their keys."""
        for bucket in sorted(self._files):
            with self._files[bucket] as file:
                with full_disk.reported(self._directory / f"records-{bucket}"):
                    file.flush()
                yield from _sorted_records(file)


def _sorted_records(file: BinaryIO) -> Iterator[bytes]:
    places, position = [], 0
    end = file.seek(0, 2)
    while position < end:
        file.seek(position)
        key, length = _HEADER.unpack(file.read(_HEADER.size))
        position += _HEADER.size
        places.append((key, position, length))
        position += length
    for _, position, length in sorted(places):
        file.seek(position)
        yield file.read(length)
