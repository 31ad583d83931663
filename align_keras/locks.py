"""Locks that allow only one process at a time to work in a directory.

The system frees the lock of a process however it ends; the remaining file does no harm. Locks work
between machines if the file system supports ``flock``: NFS (unless mounted with ``nolock`` or
``local_lock``), GPFS, CephFS, and Lustre mounted with ``flock``. If a file system has no locks, a
line reports it and the work continues. On TensorFlow's remote file systems, such as ``gs://``, a
lease replaces the lock.
"""

import contextlib
import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from align_keras import leases, processes
from align_keras.paths import AnyPath
from align_keras.remote_path import RemotePath

# Errors of flock on file systems without locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockedError(BlockingIOError):
    """Another process holds a lock.

    Attributes:
        remedy: advice to wait for the process, with its number and machine if they are known, such
            as ``wait for pretrain.py, process 123 on host1``.
    """

    def __init__(self, path: AnyPath, holder: str) -> None:
        super().__init__(f"{path} is locked; wait for {holder}")
        self.remedy = f"wait for {holder}"


@contextlib.contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Holds the lock of a file, which is created at the start and removed at the end.

    Raises:
        LockedError: if another process or this one already holds the lock.
    """
    with _leased(path) if isinstance(path, RemotePath) else _flocked(path):
        yield


@contextlib.contextmanager
def _leased(path: RemotePath) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(leases.held(path))
        except leases.TakenError as error:
            raise LockedError(path, str(error)) from None
        yield


@contextlib.contextmanager
def _flocked(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            # Another process may have removed the file after this one opened it.
            if not _lock(file.fileno(), path) or _is_there(path, file.fileno()):
                break
        file.truncate(0)
        file.write(json.dumps(processes.own_name()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(descriptor: int, path: Path) -> bool:
    """Locks an open file; prints a line and returns False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(path, _holder(path)) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        print(
            f"{path.parent} is on a file system without locks ({error.strerror}): "
            "make sure that no other process uses it",
            file=sys.stderr,
        )
        return False
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether a path still points to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{found['command']}, process {found['process']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it to end"
