"""Writes shards in the layout of ``records``, with statistics, completely or not at all."""

import contextlib
import json
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_keras import files, full_disk, lazy
from align_keras.data import shard_names
from align_keras.data.shard_sets import shard_path

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy.Module("tensorflow")


class ShardWriter:
    """Writes records into numbered shards of fixed size, each completely or not at all.

    A shard is written under a name that ends in ``.partial``. Once it is complete, its statistics
    are written and it is renamed.

    Args:
        prefix: path and prefix of the shards: ``DIR/train`` gives ``DIR/train-00000.tfrecord``.
        shard_size: records per shard.

    Raises:
        NoSpaceError: from ``write``, if the disk is full.
    """

    def __init__(self, prefix: str, shard_size: int) -> None:
        self.prefix = prefix
        self.shard_size = shard_size
        self.shards: list[str] = []
        self.count = 0
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = ""
        self._in_shard = 0

    def write(self, record: bytes) -> None:
        """Appends one serialised record."""
        if self._writer is None:
            tf.io.gfile.makedirs(os.path.dirname(self.prefix) or ".")
            self._path = shard_path(self.prefix, len(self.shards))
            self._writer = tf.io.TFRecordWriter(self._path + ".partial")
        with full_disk.reported(self._path):
            self._writer.write(record)
        self.count += 1
        self._in_shard += 1
        if self._in_shard == self.shard_size:
            self._finish_shard()

    def _finish_shard(self) -> None:
        assert self._writer is not None
        with full_disk.reported(self._path):
            self._writer.close()
        _write_count(self._path, self._in_shard)
        tf.io.gfile.rename(self._path + ".partial", self._path, overwrite=True)
        self.shards.append(self._path)
        self._writer, self._in_shard = None, 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        if error_type is None:
            self._finish_shard()
        else:
            # Closing fails as well if the disk is full.
            with contextlib.suppress(tf.errors.OpError):
                self._writer.close()
            tf.io.gfile.remove(self._path + ".partial")


def write_shard(path: str, frames: Sequence[bytes]) -> None:
    """Writes one complete shard with its statistics; several processes may call it at once.

    Args:
        path: path of the shard.
        frames: serialised records.
    """
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    with tf.io.TFRecordWriter(partial) as writer:
        for record in frames:
            writer.write(record)
    _write_count(path, len(frames))
    tf.io.gfile.rename(partial, path, overwrite=True)


def _write_count(shard: str, count: int) -> None:
    files.write_whole(shard_names.stats_path(shard), json.dumps({"successes": count}) + "\n")
