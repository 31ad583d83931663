"""Files and folders that are written whole or not at all, and JSON that is checked when read.

On this machine by renames; ``uploads`` says how elsewhere.
"""

import contextlib
import gzip
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from align_keras import full_disk, paths, processes, uploads
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.locks import LockedError, locked
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath

_LOCK = "lock"
# A partial file's name has its process, which another process of the same machine and container can
# look for. Elsewhere the process counts as ended when nothing was written for a day.
_SECONDS_ELSEWHERE = 86_400
_PARTIAL = re.compile(
    r"(?P<stem>.+?)\.(?P<place>[0-9a-f]{8})-(?P<process>\d{1,10})-(?P<write>[0-9a-f]{8})"
    r"\.partial(?P<suffix>\.[^.]+|)"
)
_EARLIER_PARTIAL = re.compile(r"(?P<stem>.+?)\.partial(?P<suffix>\.[^.]+|)")
#: Names of the partial files that this process is writing.
_written: set[str] = set()
#: What to do about a file of a run that is damaged or gone.
RESTORE = "restore it, or give another <workdir>"


def write_whole(
    path: str | os.PathLike[str] | RemotePath, content: str | Callable[[Path], Any]
) -> None:
    """Writes a file so that it is never seen half-written.

    After an error ``path`` is unchanged and no partial file is left. Several processes may write it
    at a time; the last one stays. What killed processes have left of it is removed.

    Args:
        path: path of the file, on this machine or where ``tf.io.gfile`` leads.
        content: its text, or a function that writes a file at the local path that it gets, which
            has the suffix of ``path``.

    Raises:
        NoSpaceError: if its disk is full.
    """
    path = paths.path_of(path)
    if isinstance(path, RemotePath):
        with full_disk.reported(str(path)):
            uploads.write(path, content)
        return
    _sweep(path)
    write = uuid.uuid4().hex[:8]
    partial = path.with_name(
        f"{path.stem}.{processes.place()}-{os.getpid()}-{write}.partial{path.suffix}"
    )
    _written.add(partial.name)
    try:
        with full_disk.reported(path):
            if isinstance(content, str):
                partial.write_text(content, encoding="utf-8")
            else:
                content(partial)
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        _written.discard(partial.name)


def whole_name(name: str) -> str:
    """The name of the file of which a partial one is called ``name``; another name as it is."""
    found = _PARTIAL.fullmatch(name) or _EARLIER_PARTIAL.fullmatch(name)
    return found["stem"] + found["suffix"] if found else name


def _sweep(path: Path) -> None:
    """Removes the partial files of a path whose processes have ended, as far as it may."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            found = _PARTIAL.fullmatch(name)
            if not found or found["stem"] + found["suffix"] != path.name:
                continue
            partial = path.with_name(name)
            if not _is_being_written(partial, found["place"], int(found["process"])):
                with contextlib.suppress(OSError):
                    partial.unlink()


def _is_being_written(partial: Path, place: str, process: int) -> bool:
    if place != processes.place():
        return time.time() - partial.stat().st_mtime < _SECONDS_ELSEWHERE
    if process == os.getpid():
        # Of this process, or of an ended one that had its number.
        return partial.name in _written
    return processes.is_running(process)


def flush(path: Path) -> None:
    """Waits until the bytes of a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        # Some network file systems cannot for a folder.
        if not path.is_dir():
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def whole_folder(
    path: str | os.PathLike[str] | RemotePath, replace: bool = False
) -> Iterator[Path]:
    """Yields a local folder, which takes the place of ``path`` at the end.

    After an error ``path`` is unchanged and no partial file is left. On this machine it changes in
    one step; elsewhere file by file, as ``uploads`` says.

    Args:
        path: path of the folder. What stands there must be absent or an empty folder.
        replace: allows a folder with files there, which is removed at the end.

    Raises:
        NoSpaceError: if its disk is full.
    """
    path = paths.path_of(path)
    if isinstance(path, RemotePath):
        with full_disk.reported(str(path)), uploads.staged(path, replace) as staged:
            yield staged
        return
    # A link to a folder cannot be replaced, the folder can; "." has no name.
    path = path.resolve()
    with work_folder(path.with_name(f"{path.name}.partial")) as work:
        replaced = work / "replaced"
        if replaced.exists() and not path.exists():
            # A process was killed between the two renames.
            replaced.rename(path)
        empty(work)
        folder = work / path.name
        folder.mkdir()
        with full_disk.reported(path):
            yield folder
        if not replace or not path.is_dir():
            if path.is_dir():
                path.rmdir()
            folder.rename(path)
            return
        # Moved, which takes no time; it is removed with the work.
        try:
            path.rename(replaced)
            folder.rename(path)
        except BaseException:
            # A signal may come between any two lines.
            if replaced.exists() and not path.exists():
                replaced.rename(path)
            raise


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """A folder for the unfinished work of one process, which is removed at the end.

    It is new, or a process that was killed left it with its files: use those, or call ``empty``.
    Nothing else is ever removed: a folder without the lock that this function makes belongs to
    somebody else.

    Args:
        path: path of the folder.

    Raises:
        InputError: if another process works in it, or it is no such folder.
        NoSpaceError: if its disk is full.
    """
    path.mkdir(parents=True, exist_ok=True)
    others = sorted(entry.name for entry in path.iterdir())
    if others and _LOCK not in others:
        raise InputError(
            f"the folder for unfinished work holds {others[0]}, which this command did not write",
            Place(str(path)),
            "move it away",
        )
    try:
        with _lock_of_work(path):
            try:
                with full_disk.reported(path):
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


@contextlib.contextmanager
def opened(path: AnyPath, mode: str = "rt", **options: Any) -> Iterator[Any]:
    """Opens a file for reading; one whose name ends in ``.gz`` is unpacked.

    Args:
        path: path of the file.
        mode: ``rt`` or ``rb``.
        **options: of ``open``: ``encoding``, ``newline``.
    """
    if not path.name.lower().endswith(".gz"):
        with path.open(mode, **options) as file:
            yield file
        return
    with path.open("rb") as packed, gzip.open(packed, mode, **options) as unpacked:
        yield unpacked


def read_json(path: AnyPath, kind: type | tuple[type, ...], remedy: str = RESTORE) -> Any:
    """Reads a JSON file of a run.

    Args:
        path: path of the file.
        kind: what it must hold, ``dict``, ``list`` or either.
        remedy: what to do about a damaged one.

    Raises:
        InputError: if it holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise damaged(path, remedy)
    return value


def damaged(path: AnyPath, remedy: str = RESTORE) -> InputError:
    """The error about a file of a run that does not hold what the run wrote."""
    return InputError("damaged", Place(str(path)), remedy)


def missing(path: AnyPath) -> MissingInputError:
    """The error about a file that the run in its folder wrote and that is gone."""
    return MissingInputError("missing, although there is a run", Place(str(path)), RESTORE)
