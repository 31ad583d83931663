"""Leases replace locks on TensorFlow's remote file systems, which have no locks.

A lease is an object that its holder rewrites every few seconds. A process that finds a lease waits.
If the lease changes, the process gives up. If it stays unchanged for a while, its holder was
killed, and the process takes the lease over. No clocks are compared.

A lease keeps out a second run that is started by mistake. It is not a lock, since an object store
cannot test and write in one step. Two runs that start within a second may both begin, and a run
whose network fails for longer than the wait loses its lease. In both cases ``check`` finds this out
before the next checkpoint, so that two runs never write alternately.
"""

import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from align_keras import processes
from align_keras.errors import InputError, Place
from align_keras.remote_path import RemotePath

#: Seconds between two writes of a lease.
RENEWED_EVERY = 15.0
#: Seconds after which an unchanged lease counts as abandoned.
LEFT_AFTER = 4 * RENEWED_EVERY
#: The leases that this process holds, with their tokens.
_held: dict[RemotePath, str] = {}


class TakenError(BlockingIOError):
    """Another process holds a lease; the message names the process."""


@contextlib.contextmanager
def held(path: RemotePath) -> Iterator[None]:
    """Holds the lease of a file, which is written at the start and removed at the end.

    Raises:
        TakenError: if another process or this one already holds the lease.
    """
    if path in _held:
        raise TakenError(holder_of(processes.own_name()))
    if (before := _read(path)) is not None and not _has_ended(before):
        _wait_until_left(path, before)
    token = uuid.uuid4().hex
    _write(path, token, 0)
    _held[path] = token
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, token, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        del _held[path]
        # Without a network connection it remains, and the next run waits for it.
        with contextlib.suppress(OSError):
            if (_read(path) or {}).get("token") == token:
                path.unlink(missing_ok=True)


def check(path: RemotePath) -> None:
    """Raises InputError if another process has taken over the lease of a folder above this path."""
    for lease, token in list(_held.items()):
        if lease.parent not in (path, *path.parents):
            continue
        found = _read(lease)
        # A lease without a token is being written.
        if found is not None and found.get("token", token) != token:
            raise InputError(
                f"another run has begun to use it: {holder_of(found)}",
                Place(str(lease.parent)),
                "this run wrote nothing more; end one of the two",
            )


def holder_of(found: dict[str, Any]) -> str:
    """The process of a lease, for messages."""
    if not all(name in found for name in ("command", "process", "host")):
        return "another process"
    return f"{found['command']}, process {found['process']} on {found['host']}"


def _wait_until_left(path: RemotePath, before: dict[str, Any]) -> None:
    print(
        f"{path.parent} was used by {holder_of(before)}: checking for {LEFT_AFTER:.0f} s whether "
        "it still is",
        file=sys.stderr,
        flush=True,
    )
    end = time.monotonic() + LEFT_AFTER
    while time.monotonic() < end:
        time.sleep(min(1.0, LEFT_AFTER / 4))
        if (found := _read(path)) is None:
            return
        if found != before:
            raise TakenError(holder_of(found))


def _has_ended(found: dict[str, Any]) -> bool:
    """Whether the holder is known to have ended, since it was a process on this machine."""
    process = found.get("process")
    if found.get("place") != processes.place() or not isinstance(process, int):
        return False
    return not processes.is_running(process)


def _renew(path: RemotePath, token: str, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(RENEWED_EVERY):
        count += 1
        # The run continues while the network fails; checkpoints will report the failure.
        with contextlib.suppress(OSError):
            if (_read(path) or {}).get("token", token) != token:
                return
            if not stop.is_set():
                _write(path, token, count)


def _write(path: RemotePath, token: str, count: int) -> None:
    own = {**processes.own_name(), "place": processes.place(), "token": token, "renewed": count}
    path.write_text(json.dumps(own) + "\n")


def _read(path: RemotePath) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
