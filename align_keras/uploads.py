"""Writes to remote file systems: files are prepared locally and then copied.

An object store cannot rename a folder, append to a file or lock it, but an object is either
complete or absent. A file is therefore prepared locally and copied as one object. For a folder, the
list of checksums is copied first, and the file by which readers recognise the folder last. An
incomplete folder left by a killed process is thus never read as complete: with the list, every
missing or outdated file is a fault.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from align_keras.remote_path import RemotePath

#: File name of a folder's list of checksums.
LIST = "checksums.json"
# Files by which readers recognise a preset, an export or a preprocessor.
_LAST = ("preprocessor.json", "task.json", "config.json", "saved_model.pb")
# Not object stores: an incomplete file is visible, and a rename is one step.
_WITH_RENAME = ("hdfs", "viewfs", "har")


def write(path: RemotePath, content: str | Callable[[Path], Any]) -> None:
    """Writes a file completely or not at all.

    Args:
        path: path of the file; parent folders are created.
        content: text of the file, or a function that writes a local file to the path it is given.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / path.name
        if isinstance(content, str):
            local.write_text(content, encoding="utf-8")
        else:
            content(local)
        path.parent.mkdir(parents=True, exist_ok=True)
        put(local, path)


def put(local: Path, path: RemotePath) -> None:
    """Copies a local file to its remote path, completely or not at all."""
    if path.scheme not in _WITH_RENAME:
        path.copy_from(str(local))
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.copy_from(str(local))
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def staged(path: RemotePath, replace: bool = False) -> Iterator[Path]:
    """Yields an empty local folder and copies it to ``path`` at the end, unless an error occurs.

    Args:
        path: path of the folder.
        replace: whether other files in the remote folder are removed at the end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / path.name
        folder.mkdir()
        yield folder
        names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
        before = files_below(path) if replace else []
        for name in sorted(names, key=_turn):
            target = path / name.replace(os.sep, "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            put(folder / name, target)
        for name in sorted(set(before) - set(names)):
            (path / name).unlink(missing_ok=True)


def files_below(folder: RemotePath) -> list[str]:
    """The files in a folder and its subfolders, as paths relative to it, with ``/``."""
    found = []
    for place, names in walk(folder):
        start = str(place).removeprefix(str(folder)).lstrip("/")
        found += [f"{start}/{name}" if start else name for name in names]
    return sorted(found)


def walk(folder: RemotePath) -> Iterator[tuple[RemotePath, list[str]]]:
    """Yields a folder and all its subfolders, each with the names of its files."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        entries = sorted(current.iterdir()) if current.is_dir() else []
        below = [entry for entry in entries if entry.is_dir()]
        yield current, [entry.name for entry in entries if entry not in below]
        waiting += reversed(below)


def fetched(path: RemotePath, folder: Path, names: Iterable[str]) -> None:
    """Copies files from a remote folder to a local one."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (path / name).copy_to(str(target))


def _turn(name: str) -> tuple[int, str]:
    if name == LIST:
        return 0, name
    return (2 + _LAST.index(name) if name in _LAST else 1), name
