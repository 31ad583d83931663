"""Reports a full disk in one line, with the file and the space needed, whichever library fails.

Python, h5py, NumPy, TensorFlow, DuckDB and safetensors each raise different errors.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from align_keras.errors import NoSpaceError, Place

# A full disk, an exhausted quota, and a limit on the size of a file (RLIMIT_FSIZE).
_PROBLEMS = {
    errno.ENOSPC: "no space left on its disk",
    errno.EDQUOT: "no space left in the quota of its disk",
    errno.EFBIG: "it would exceed the limit on file sizes (ulimit -f)",
}
_SAID = {os.strerror(number): number for number in _PROBLEMS}
# numpy.save and ndarray.tofile report neither an error number nor a file name.
_NUMPYS = re.compile(r"\d+ requested and \d+ written")
# The ways in which TensorFlow, h5py and DuckDB name the file.
_NAMED = re.compile(
    rf"(/[^;{{}}\n]*); (?:{'|'.join(_SAID)})|filename = '([^'\n]+)'|file \"([^\"\n]+)\""
)
_REMEDY = "free some space, then run the same command again"


@contextlib.contextmanager
def reported(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside the block, an error that means a full disk becomes a ``NoSpaceError``.

    Args:
        path: the file to be written; used if the error does not name a file itself.

    Raises:
        NoSpaceError: names the file and the space needed.
    """
    try:
        yield
    except Exception as error:
        found = as_no_space(error, path)
        if found is None or found is error:
            raise
        raise found from error


def as_no_space(error: BaseException, path: str | os.PathLike[str] = "") -> NoSpaceError | None:
    """The ``NoSpaceError`` for an error; None if the error does not mean a full disk."""
    causes = list(_causes(error))
    # Closing the file fails again, and that error names no file.
    if known := [cause for cause in causes if isinstance(cause, NoSpaceError)]:
        return known[0]
    found = [cause for cause in causes if _number(cause) is not None]
    if not found:
        return None
    cause = next(filter(_file, found), found[0])
    file = _file(cause) or os.fspath(path)
    return NoSpaceError(_problem(cause, file), Place(file), _REMEDY)


def check_room(folder: str | os.PathLike[str], size: int) -> None:
    """Raises a NoSpaceError unless a file of ``size`` bytes fits into a folder.

    Called before HDF5 writes, since after a failed write HDF5 may end the process on closing the
    file.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        # Some file systems cannot reserve space.
        if (number := _number(error)) is not None:
            needed = f" ({_size(size)} needed, {_size(shutil.disk_usage(folder).free)} free)"
            place = Place(os.fspath(folder))
            raise NoSpaceError(_PROBLEMS[number] + needed, place, _REMEDY) from error


def ignore_unraisable() -> None:
    """Hides what libraries print about a full disk when they free an object.

    In that case h5py cannot close a file, and Python would print that in addition to the error.
    """
    others: Callable[[Any], Any] = sys.unraisablehook

    def show(found: Any) -> None:
        if found.exc_value is None or _number(found.exc_value) is None:
            others(found)

    sys.unraisablehook = show


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    """The error number if an error means a full disk, else None."""
    number = getattr(error, "errno", None)
    if number in _PROBLEMS:
        return number
    text = str(error)
    if isinstance(error, OSError) and _NUMPYS.search(text):
        return errno.ENOSPC
    return next((number for said, number in _SAID.items() if said in text), None)


def _problem(error: BaseException, file: str) -> str:
    number = _number(error) or errno.ENOSPC
    return _PROBLEMS[number] + ("" if number == errno.EFBIG else _left(file))


def _file(error: BaseException) -> str:
    """The file that an error names, or an empty string."""
    name = getattr(error, "filename", None)
    if isinstance(name, str | os.PathLike):
        return os.fspath(name)
    found = _NAMED.search(str(error))
    return next(filter(None, found.groups()), "") if found else ""


def _left(path: str) -> str:
    """A lower bound on the space needed: the free space where the file would be."""
    if "://" in path:  # remote files are prepared on this machine
        path = tempfile.gettempdir()
    for folder in (Path(path), *Path(path).parents):
        with contextlib.suppress(OSError):
            return f" (more than {_size(shutil.disk_usage(folder).free)} needed)"
    return ""


def _size(count: int) -> str:
    """A number of bytes as text, such as ``3.1 MiB``."""
    if count < 1024:
        return f"{count:,} bytes"
    if count < 1 << 30:
        return f"{count / (1 << 20):,.3f} MiB"
    return f"{count / (1 << 30):,.1f} GiB"
