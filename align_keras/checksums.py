"""Checksums of files, stored in a list in the same folder, to detect damage later.

    {"format": "align_keras checksums 1",
     "files": {"embeddings.bin": {"bytes": 5120, "sha256": "9f86d0..."}}}

The list of a folder is ``checksums.json``. Names are relative to the folder of the list, with
``/``. A list detects accidents, not attacks: whoever can change a file can change the list too.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from align_keras import files, full_disk, paths, progress, uploads
from align_keras.errors import InputError, MissingInputError, Place, UnreachableError
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath

#: A path in any form.
Given: TypeAlias = str | os.PathLike[str] | RemotePath
#: File name of a folder's list.
NAME = uploads.LIST
#: The card of a model. The checksum in the list identifies an edited card; editing is not damage.
CARD = "README.md"
#: Name of the copy of a card that was edited before a new one replaced it.
EARLIER_CARD = "README.before.md"
_FORMAT = "align_keras checksums 1"
_REMEDY = "restore it or write it again; if the change is intended, delete {}"
_CHUNK = 1 << 20
_MOST_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class Checksum:
    """Size and SHA-256 of a file when it was written."""

    bytes: int
    sha256: str


def of_file(path: Given) -> Checksum:
    """The checksum of a file as it is now."""
    digest, size = hashlib.sha256(), 0
    with paths.path_of(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Checksum(size, digest.hexdigest())


def of_bytes(data: bytes) -> Checksum:
    """The checksum of a file with these bytes."""
    return Checksum(len(data), hashlib.sha256(data).hexdigest())


def list_of(folder: Given) -> str:
    """The path of a folder's list."""
    return os.path.join(_text(folder), NAME)


def _text(path: Given) -> str:
    return str(path) if isinstance(path, RemotePath) else os.fspath(path)


def write(path: Given, found: Mapping[str, Checksum]) -> None:
    """Writes a list.

    Args:
        path: path of the list.
        found: checksums by file name, relative to the folder of the list.
    """
    sums = {name: dataclasses.asdict(found[name]) for name in sorted(found)}
    text = json.dumps({"format": _FORMAT, "files": sums}, indent=1) + "\n"
    files.write_whole(path, text)


def write_folder(folder: Given, names: Iterable[str] | None = None) -> None:
    """Writes the list of a folder.

    Args:
        folder: folder of the files.
        names: names of the files; None for all files, including those in subfolders.
    """
    folder = _text(folder)
    names = files_below(folder) if names is None else names
    write(list_of(folder), {name: of_file(os.path.join(folder, name)) for name in names})


def files_below(folder: Given) -> list[str]:
    """The sorted names of the files in a folder and its subfolders, without the list."""
    path = paths.path_of(folder)
    if isinstance(path, RemotePath):
        return sorted(set(uploads.files_below(path)) - {NAME})
    found: list[str] = []
    for place, _, names in os.walk(path):
        own = (os.path.relpath(os.path.join(place, name), path) for name in names)
        found.extend(name.replace(os.sep, "/") for name in own)
    return sorted(set(found) - {NAME})


@contextlib.contextmanager
def writing_into(folder: Given) -> Iterator[Path]:
    """Yields an empty local folder, whose files move into ``folder`` at the end.

    Their checksums are added to the list of ``folder``, which keeps its other entries. After an
    error in the block, ``folder`` is unchanged. If the move itself is interrupted, the list shows
    which files are not the new ones. Files that the block writes with this function are not read
    again for their checksums.

    Args:
        folder: the destination folder; it need not exist.

    Raises:
        InputError: if another process writes there, where the file system has locks.
        NoSpaceError: if the disk of the folder is full.
    """
    folder = paths.path_of(folder)
    if isinstance(folder, RemotePath):
        with full_disk.reported(str(folder)), uploads.staged(folder) as new:
            yield new
            write(list_of(new), _merged(folder, new))
        return
    is_new = not folder.exists()
    # Inside the folder, which may be a separately mounted disk.
    with _removed_after_error(folder, is_new), files.work_folder(folder / ".partial") as work:
        files.empty(work)
        new = work / "new"
        new.mkdir()
        with full_disk.reported(folder):
            yield new
            names = files_below(new)
            # This file is written first. Otherwise a folder with only some of the new files could
            # be mistaken for an intact one.
            write(list_of(folder), _merged(folder, new))
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).replace(folder / name)


def _merged(folder: AnyPath, new: Path) -> dict[str, Checksum]:
    """The checksums of a folder after the files of another folder have been moved into it."""
    listed = read(list_of(new)) or {}
    found = {name: listed.get(name) or of_file(new / name) for name in files_below(new)}
    with contextlib.suppress(InputError):  # the list is damaged
        found = (read(list_of(folder)) or {}) | found
    return found


@contextlib.contextmanager
def _removed_after_error(folder: Path, is_new: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def read(path: Given) -> dict[str, Checksum] | None:
    """Reads a list: checksums by file name; None if the list does not exist.

    Raises:
        InputError: if the list is damaged, or names a file outside its folder.
    """
    path = _text(path)
    if _size(path) is None:
        return None
    try:
        with paths.path_of(path).open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
        if content["format"] != _FORMAT:
            raise ValueError
        found = {name: Checksum(**own) for name, own in content["files"].items()}
        if not all(_is_inside(name) and _is_checksum(own) for name, own in found.items()):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        remedy = _REMEDY.format("it")
        raise InputError("damaged: not a list of checksums", Place(path), remedy) from None
    return found


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name)
    return bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts


def _is_checksum(found: Checksum) -> bool:
    return type(found.bytes) is int and type(found.sha256) is str


def faults(
    path: Given,
    read_up_to: int | None = None,
    needed: Iterable[str] = (),
    names: Callable[[str], bool] = lambda _: True,
) -> Iterator[InputError]:
    """Compares files with their list, one by one, except cards.

    Args:
        path: path of the list; if it does not exist, there are no faults.
        read_up_to: in bytes; for a larger file only the size is compared. None reads all files.
        needed: names that the list must contain.
        names: whether to compare the file of a given name.

    Yields:
        An error for each file that has changed since it was written.

    Raises:
        InputError: if the list is damaged.
        UnreachableError: if the file system cannot be reached.
    """
    path = _text(path)
    found = read(path)
    if found is None:
        return
    folder = os.path.dirname(path)
    remedy = _REMEDY.format(os.path.basename(path))
    chosen = sorted({*filter(names, found), *needed} - {CARD})
    for name in progress.watch(chosen, "comparing checksums", "file", len(chosen)):
        place = os.path.join(folder, *name.split("/"))
        problem = f"not in {path}"
        if name in found:
            problem = _difference(place, found[name], read_up_to)
        if problem:
            kind = InputError if paths.path_of(place).exists() else MissingInputError
            yield kind(problem, Place(place), remedy)


def check(folder: Given, **options: Any) -> None:
    """Raises the first of a folder's ``faults``, to which the options are passed."""
    for fault in faults(list_of(folder), **options):
        raise fault


def _difference(path: str, before: Checksum, read_up_to: int | None) -> str:
    """How a file differs from its checksum; empty if it is unchanged."""
    try:
        size = _size(path)
        if size is None:
            return f"it is missing; {before.bytes:,} bytes were written"
        if size != before.bytes:
            return f"damaged: {size:,} bytes, not the {before.bytes:,} that were written"
        is_read = read_up_to is None or size <= read_up_to
        if is_read and of_file(path).sha256 != before.sha256:
            return "damaged: its checksum has changed"
    except UnreachableError:  # which is not a fault of the file
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def _size(path: str) -> int | None:
    """Bytes of a file; None if it is missing, or a pipe or device, which would block."""
    found = paths.path_of(path)
    return found.stat().st_size if found.is_file() else None
