"""Writes files and folders completely or not at all, and checks JSON files when reading them.

On local disks it uses renames; ``uploads`` describes the method for remote storage.
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
# The name of a partial file includes its process, so that other processes on the same machine and
# in the same container can check whether that process is running. From elsewhere, the process
# counts as ended if nothing has been written for a day.
_SECONDS_ELSEWHERE = 86_400
_PARTIAL = re.compile(
    r"(?P<stem>.+?)\.(?P<place>[0-9a-f]{8})-(?P<process>\d{1,10})-(?P<write>[0-9a-f]{8})"
    r"\.partial(?P<suffix>\.[^.]+|)"
)
_EARLIER_PARTIAL = re.compile(r"(?P<stem>.+?)\.partial(?P<suffix>\.[^.]+|)")
#: Names of the partial files that this process is writing now.
_written: set[str] = set()
#: The remedy for a damaged or missing file of a run.
RESTORE = "restore it, or give another <workdir>"


def write_whole(
    path: str | os.PathLike[str] | RemotePath, content: str | Callable[[Path], Any]
) -> None:
    """Writes a file so that it is never seen half-written.

    After an error, ``path`` is unchanged and no partial file is left. Several processes may write
    it at the same time; the last one wins. Partial files left by killed processes are removed.

    Args:
        path: path of the file, local or on storage that ``tf.io.gfile`` supports.
        content: text of the file, or a function that writes a file to the local path it is given,
            which has the suffix of ``path``.

    Raises:
        NoSpaceError: if the disk of the file is full.
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
    """The final name of a partial file called ``name``; any other name unchanged."""
    found = _PARTIAL.fullmatch(name) or _EARLIER_PARTIAL.fullmatch(name)
    return found["stem"] + found["suffix"] if found else name


def _sweep(path: Path) -> None:
    """Removes a path's partial files whose processes have ended, if permitted."""
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
        # Written by this process, or by an ended process with the same number.
        return partial.name in _written
    return processes.is_running(process)


def flush(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:
        # Some network file systems cannot do this for folders.
        if not path.is_dir():
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def whole_folder(
    path: str | os.PathLike[str] | RemotePath, replace: bool = False
) -> Iterator[Path]:
    """Yields a local folder, which replaces ``path`` at the end.

    After an error, ``path`` is unchanged and no partial file is left. A local folder is replaced in
    one step, a remote one file by file, as ``uploads`` describes.

    Args:
        path: path of the folder, which must either be empty or not exist.
        replace: if True, an existing folder with files is allowed; it is removed at the end.

    Raises:
        NoSpaceError: if the disk of the folder is full.
    """
    path = paths.path_of(path)
    if isinstance(path, RemotePath):
        with full_disk.reported(str(path)), uploads.staged(path, replace) as staged:
            yield staged
        return
    # A link to a folder cannot be replaced, but the folder can. The path "." has no name.
    path = path.resolve()
    with work_folder(_work_of(path)) as work:
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
        # Moved, which is instantaneous. It is removed together with the work folder.
        try:
            path.rename(replaced)
            folder.rename(path)
        except BaseException:
            # A signal may arrive between any two lines.
            if replaced.exists() and not path.exists():
                replaced.rename(path)
            raise


def remove_left_work(folder: AnyPath) -> None:
    """Removes what a killed process left of ``whole_folder`` after ``folder`` was complete.

    The work of a running process and files of other programs stay.
    """
    if isinstance(folder, Path) and (work := _work_of(folder.resolve())).exists():
        with contextlib.suppress(InputError), work_folder(work):
            pass


def _work_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """Yields a folder for the unfinished work of one process; removes it at the end.

    The folder is new, or was left with its files by a killed process: use these files, or call
    ``empty``. Nothing else is ever removed. A folder without the lock that this function creates
    belongs to another program.

    Args:
        path: path of the folder.

    Raises:
        InputError: if another process works in the folder, or it is not a work folder.
        NoSpaceError: if the disk of the folder is full.
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
        # Fails if another process works there.
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
    """Opens a file for reading; decompresses it if its name ends in ``.gz``.

    Args:
        path: path of the file.
        mode: ``rt`` or ``rb``.
        **options: options of ``open``: ``encoding``, ``newline``.
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
        kind: the required type, ``dict``, ``list`` or both.
        remedy: what the user can do about a damaged file.

    Raises:
        InputError: if the file holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise damaged(path, remedy)
    return value


def damaged(path: AnyPath, remedy: str = RESTORE) -> InputError:
    """The error for a file of a run whose content is damaged."""
    return InputError("damaged", Place(str(path)), remedy)


def missing(path: AnyPath) -> MissingInputError:
    """The error for a file of a run that is missing."""
    return MissingInputError("missing, although there is a run", Place(str(path)), RESTORE)
