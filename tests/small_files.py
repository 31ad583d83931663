"""Simulates a full disk for this process: files may not become larger than a limit."""

import contextlib
import resource


@contextlib.contextmanager
def small_files(limit=1 << 16):
    """Inside the block, writing more than ``limit`` bytes to a file fails, also in libraries."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
