"""Files and folders that are written whole or not at all, and JSON that is checked when read."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from align_keras.errors import InputError, Place
from align_keras.locks import LockedError, locked

_LOCK = "lock"


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
    with work_folder(path.with_name(f"{path.name}.partial")) as work:
        replaced = work / "replaced"
        if replaced.exists() and not path.exists():
            # A process was killed between the two renames.
            replaced.rename(path)
        empty(work)
        folder = work / path.name
        folder.mkdir()
        yield folder
        if not replace or not path.is_dir():
            if path.is_dir():
                path.rmdir()
            folder.rename(path)
            return
        # Moved, which takes no time; it is removed with the work.
        path.rename(replaced)
        try:
            folder.rename(path)
        except BaseException:
            replaced.rename(path)
            raise


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """A folder for the unfinished work of one process, which is removed at the end.

    It is new, or a process that was killed left it with its files: use those, or call ``empty``.
    Nothing else is ever removed: a folder without the lock that this function makes belongs to
    somebody else.

    Args:
        path: of the folder.

    Raises:
        InputError: if another process works in it, or it is no such folder.
    """
    path.mkdir(parents=True, exist_ok=True)
    others = sorted(entry.name for entry in path.iterdir())
    if others and _LOCK not in others:
        raise InputError(
            f"the folder for unfinished work holds {others[0]}, which is not of this command",
            Place(str(path)),
            "move it away",
        )
    try:
        with _lock_of_work(path):
            try:
                yield path
            finally:
                empty(path)
    finally:
        # It fails where another process works there.
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _lock_of_work(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path / _LOCK))
        except LockedError as error:
            raise InputError(
                f"another run is writing {path.with_suffix('')}", remedy=error.remedy
            ) from None
        yield


def empty(folder: Path) -> None:
    """Removes the files of unfinished work from a ``work_folder``."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


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
