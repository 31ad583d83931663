"""Writes to file systems of TensorFlow's: prepared on this machine, then copied.

An object store has no rename of a folder, no append and no lock, but an object is there whole or
not at all. So a file is made here and copied as one object. Of a folder the list of checksums is
copied first and what a reader looks for last, so that a folder of which a killed process has
written a part is never read as whole: where the list is, each missing or older file is a fault.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from align_keras.remote_path import RemotePath

#: The list of a folder's checksums.
LIST = "checksums.json"
# Files by which readers recognise a preset, an export or a preprocessor.
_LAST = ("preprocessor.json", "task.json", "config.json", "saved_model.pb")
# No object stores: a file is seen while it is written, and a rename is one step.
_WITH_RENAME = ("hdfs", "viewfs", "har")


def write(path: RemotePath, content: str | Callable[[Path], Any]) -> None:
    """Writes a file whole.

    Args:
        path: path of the file; the folders above are made.
        content: its text, or a function that writes a local file at the path that it gets.
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
    """Copies a local file to its place, which it takes whole."""
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
    """Yields an empty local folder, which is copied to ``path`` at the end, but not after an error.

    Args:
        path: path of the folder.
        replace: whether other files there are removed in the end.
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
    """The files in a folder and below, by their names relative to it, with ``/``."""
    found = []
    for place, names in walk(folder):
        start = str(place).removeprefix(str(folder)).lstrip("/")
        found += [f"{start}/{name}" if start else name for name in names]
    return sorted(found)


def walk(folder: RemotePath) -> Iterator[tuple[RemotePath, list[str]]]:
    """Every folder from one on, with the names of the files in it."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        entries = sorted(current.iterdir()) if current.is_dir() else []
        below = [entry for entry in entries if entry.is_dir()]
        yield current, [entry.name for entry in entries if entry not in below]
        waiting += reversed(below)


def fetched(path: RemotePath, folder: Path, names: Iterable[str]) -> None:
    """Copies files from below a remote folder into a local one."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (path / name).copy_to(str(target))


def _turn(name: str) -> tuple[int, str]:
    if name == LIST:
        return 0, name
    return (2 + _LAST.index(name) if name in _LAST else 1), name
