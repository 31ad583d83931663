"""Whether a shard is still the file that it was when it was opened."""

import os
import stat
from typing import NamedTuple

import tensorflow as tf

from align_keras import paths

#: A change that may have left the records as they are: size and kind are the same.
REWRITTEN = "was written again"


class ShardState(NamedTuple):
    """What tells a file from another one without reading it."""

    size: int
    """Bytes; -1 of a folder, -2 where there is none."""
    modified: int
    """When it was last written: nanoseconds."""
    identity: tuple[int, ...]
    """Device and inode of a local file."""


_FOLDER, _NOTHING = ShardState(-1, 0, ()), ShardState(-2, 0, ())


def state_of(shard: str) -> ShardState | None:
    """The state of a file; None if it cannot be found out, as while a network is down."""
    try:
        if paths.scheme(shard):
            remote = tf.io.gfile.stat(shard)
            return ShardState(remote.length, remote.mtime_nsec, ())
        found = os.stat(shard)
    except (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError):
        return _NOTHING
    except (OSError, tf.errors.OpError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return _FOLDER
    return ShardState(found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino))


def difference(before: ShardState, now: ShardState | None) -> str:
    """How a file has changed: ``is gone``; empty if it has not, or if that is not known."""
    if now is None or now == before:
        return ""
    if now == _NOTHING:
        return "is gone"
    if now == _FOLDER:
        return "is a folder"
    if now.size != before.size:
        return f"has {now.size:,} bytes, not {before.size:,},"
    return REWRITTEN
