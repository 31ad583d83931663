"""Keeps freed memory in the process instead of returning it to the system."""

import ctypes
import os

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that TensorFlow frees.

    A training step on a CPU allocates and frees gigabytes. If they were returned, the kernel would
    clear each page before its next use, which takes up to half of a step
    (``benchmarks/README.md``). Nothing is changed if the user has set ``MALLOC_...`` or
    ``GLIBC_TUNABLES``, or if the C library is not glibc.

    Returns:
        Whether the memory is kept.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (
        (_MMAP_MAX, 0),
        (_TRIM_THRESHOLD, (1 << 31) - 1),
        (_TOP_PAD, 1 << 28),
        # Other arenas end at 64 MiB, so large tensors would be mapped and unmapped again and again.
        (_ARENA_MAX, 1),
    )
    done = [mallopt(name, value) for name, value in settings]
    return all(done)
