"""Identifies the process that wrote a file, and says whether it still runs."""

import contextlib
import functools
import hashlib
import os
import socket
import sys
from pathlib import Path


@functools.cache
def place() -> str:
    """Eight digits for what sees the same processes: a machine since its start, or a container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # another system than Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def is_running(process: int) -> bool:
    """Whether a process of this place runs, by its number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def own_name() -> dict[str, str | int]:
    """This process, for a message of another one: command, process, host."""
    command = os.path.basename(sys.argv[0]) or "python"
    return {"command": command, "process": os.getpid(), "host": socket.gethostname()}
