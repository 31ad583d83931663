"""Identifies the process that wrote a file, and checks whether it is still running."""

import contextlib
import functools
import hashlib
import os
import socket
import sys
from pathlib import Path


@functools.cache
def place() -> str:
    """Eight digits that identify a process space: a machine since it booted, or a container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # a system other than Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def is_running(process: int) -> bool:
    """Whether the process with a number runs in this process space."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        pass
    return True


def own_name() -> dict[str, str | int]:
    """This process as command, process number and host, for messages of other processes."""
    command = os.path.basename(sys.argv[0]) or "python"
    return {"command": command, "process": os.getpid(), "host": socket.gethostname()}
