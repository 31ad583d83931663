"""Files and folders that are written whole or not at all, and JSON that is checked when read."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from align_keras.errors import InputError, Place


def write_whole(path: Path, content: str | Callable[[Path], Any]) -> None:
    """Writes a file so that it is never seen half-written.

    Args:
        path: of the file.
        content: its text, or a function that writes a file at the path that it gets, which has the
            suffix of ``path``.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    if isinstance(content, str):
        partial.write_text(content, encoding="utf-8")
    else:
        content(partial)
    partial.replace(path)


@contextlib.contextmanager
def whole_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Yields a folder beside ``path``, which takes its name at the end.

    After an error ``path`` is unchanged and no partial file is left.

    Args:
        path: of the folder. What stands there must be absent or an empty folder.
        replace: allows a folder with files there, which is removed at the end.
    """
    # A link to a folder cannot be replaced, the folder can; "." has no name.
    path = Path(path).resolve()
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_json(path: Path, kind: type | tuple[type, ...]) -> Any:
    """Reads a JSON file of a run.

    Args:
        path: of the file.
        kind: what it must hold, ``dict``, ``list`` or either.

    Raises:
        InputError: if it holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise InputError("damaged", Place(str(path)), "restore it, or give another <workdir>")
    return value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, which is made here and removed at the end.

    The system frees the lock of a process that is killed; the file that stays is no obstacle.

    Raises:
        BlockingIOError: if another process holds it.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A process that ended meanwhile has removed it.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise BlockingIOError(f"{path}: removed by the process that held it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
