"""Checksums of files, kept in a list beside them, by which damage is found later.

    {"format": "align_keras checksums 1",
     "files": {"ckpt-4.index": {"bytes": 5120, "sha256": "9f86d0..."}}}

The names are relative to the list's folder. A list is written whole and after its files. It finds
accidents, not attacks: whoever can change a file can change the list too.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from align_keras import files
from align_keras.errors import InputError, Place

_FORMAT = "align_keras checksums 1"
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Checksum:
    """What a file held when it was written."""

    bytes: int
    sha256: str


def of_file(path: str | os.PathLike[str]) -> Checksum:
    """The checksum of a file as it is now."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Checksum(size, digest.hexdigest())


def write(path: str | os.PathLike[str], found: Mapping[str, Checksum]) -> None:
    """Writes a list.

    Args:
        path: of the list.
        found: checksums by the names of their files, relative to the list's folder.
    """
    sums = {name: dataclasses.asdict(found[name]) for name in sorted(found)}
    files.write_whole(Path(path), json.dumps({"format": _FORMAT, "files": sums}, indent=1) + "\n")


def read(path: str | os.PathLike[str]) -> dict[str, Checksum] | None:
    """Reads a list: checksums by the names of their files; None if there is none.

    Raises:
        InputError: if it is damaged.
    """
    if not os.path.isfile(path):
        return None
    try:
        content = json.loads(Path(path).read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError
        found = {name: Checksum(**own) for name, own in content["files"].items()}
        if not all(type(own.bytes) is int and type(own.sha256) is str for own in found.values()):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError("damaged, no list of checksums", Place(os.fspath(path))) from None
    return found


def faults(path: str | os.PathLike[str], *, needed: Iterable[str] = ()) -> Iterator[InputError]:
    """Compares files with their list, one by one.

    Args:
        path: of the list; without one nothing is found.
        needed: names that the list must have.

    Yields:
        An error for each file that is not as it was written.

    Raises:
        InputError: if the list is damaged.
    """
    found = read(path)
    if found is None:
        return
    for name in sorted({*found, *needed}):
        place = os.path.join(os.path.dirname(path), name)
        problem = _difference(place, found[name]) if name in found else f"not in {path}"
        if problem:
            yield InputError(problem, Place(place))


def _difference(path: str, before: Checksum) -> str:
    """How a file differs from its checksum; empty if it does not."""
    try:
        if not os.path.isfile(path):  # no pipe or device, which would block
            return f"it is gone, {before.bytes:,} bytes were written"
        if (size := os.path.getsize(path)) != before.bytes:
            return f"damaged: {size:,} bytes, not the {before.bytes:,} that were written"
        if of_file(path).sha256 != before.sha256:
            return "damaged: its checksum is not the one of what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""
