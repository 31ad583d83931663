"""Decides which records a worker reads in an epoch, and in which order.

A shard is cut into blocks of up to 128 consecutive records. An epoch consists of all blocks of all
shards in a random order, which depends on the seed and the epoch. That order is cut into equal
parts, one per worker, which may begin and end inside a block. Every epoch thus shows every record
to exactly one worker, and parts differ by at most one record, however many shards there are. A
worker keeps up to 16 blocks of its part open and takes 16 records from each in turn; ``batches``
then shuffles the records in a buffer.

A block is read from its first byte. If the byte offsets are unknown, the shard is one block: this
holds for compressed shards, and for remote ones that are counted by their statistics. With few
blocks, fewer are open at a time, since the records of blocks that are open together come in the
same order in every epoch.

An epoch may also consist of images, each with one of its records. Blocks are then read whole, and
the records that the epoch does not take are left out. Positions and parts count the others.

The plan consists of TensorFlow ops. A block is a path, a byte offset and a number of records, so
any reader of records can follow the plan.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from align_keras import progress
from align_keras.data import framing, records
from align_keras.data.image_groups import ImageGroups
from align_keras.data.watching import WatchedFiles
from align_keras.preprocessing.tracing import as_written

#: Version of the order. A run that began with another version cannot resume.
VERSION = 2

_OPEN_BLOCKS = 16
#: Number of records taken from an open block per turn.
TURN = 16


class Block(NamedTuple):
    """Consecutive records of a shard, as int64 tensors: scalars, or vectors of equal length."""

    shard: tf.Tensor
    """Number of the shard: its index among the sorted paths."""
    start: tf.Tensor
    """Byte offset of the block."""
    whole: tf.Tensor
    """Number of leading records that are known to be complete."""
    skip: tf.Tensor
    """Number of records to skip."""
    count: tf.Tensor
    """Number of records to return."""


#: A function that reads a block.
ReadBlock = Callable[[Block], tf.data.Dataset]


class ShardCounts(dict[str, int]):
    """The number of records of each shard, by path, and the byte offsets of its blocks.

    Args:
        shards: paths of the shards.

    Attributes:
        starts: by path, the byte offsets of the shard's blocks.
        digests: by path, the digest of the shard's records, as in ``framing.ShardIndex``.
        whole: by path, the number of complete records, if it is known.
        sizes: by path, the size of the shard in bytes; 0 if it is unknown.
        watched: the shards as watched files. A file that was touched, or restored from a copy,
            counts as unchanged if its records are the same.
    """

    def __init__(self, shards: Iterable[str]) -> None:
        shards = list(shards)
        # Created before the shards are read, so that a change in between is noticed.
        self.watched = WatchedFiles(shards, self._holds_the_same)
        watched = progress.watch(shards, "counting records", "shard", len(shards))
        indices = {shard: records.index_records(shard) for shard in watched}
        super().__init__({shard: index.records for shard, index in indices.items()})
        self.starts = {shard: index.starts for shard, index in indices.items()}
        self.digests = {shard: index.digest for shard, index in indices.items()}
        self.whole = {
            shard: index.whole for shard, index in indices.items() if index.whole is not None
        }
        self.sizes = {shard: self.watched.size_of(shard) for shard in shards}

    def _holds_the_same(self, shard: str) -> bool:
        digest = self.digests[shard]
        return bool(digest) and records.index_records(shard).digest == digest


def part_of(counts: Mapping[str, int], shards: Iterable[str]) -> Mapping[str, int]:
    """The counts of some of the shards, with all other facts about them."""
    own = {shard: counts[shard] for shard in shards}
    if not isinstance(counts, ShardCounts):
        return own
    part = copy.copy(counts)
    for shard in counts.keys() - own.keys():
        del part[shard]
    return part


@dataclasses.dataclass(frozen=True)
class Share:
    """A worker's part of every epoch.

    Parts differ by one record if the number of workers does not divide the number of records. The
    longer parts rotate among the workers, so that after any number of epochs all workers have read
    equally many records, up to one.
    """

    total: int
    """Number of records per epoch."""
    worker: int
    """Index of the worker, from 0."""
    num_workers: int

    @property
    def least(self) -> int:
        """The smallest number of records in the worker's part."""
        return self.total // self.num_workers

    def read_before(self, epoch: int) -> int:
        """The number of records that the worker reads in all epochs before ``epoch``."""
        longer = self.total % self.num_workers * epoch
        return self.least * epoch + (longer - self.worker - 1) // self.num_workers + 1

    def place_of(self, position: int) -> tuple[int, int]:
        """The epoch of the worker's record at a position, and its index in the worker's part."""
        epoch = position * self.num_workers // self.total
        while self.read_before(epoch) > position:
            epoch -= 1
        while self.read_before(epoch + 1) <= position:
            epoch += 1
        return epoch, position - self.read_before(epoch)

    def bounds(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The bounds of the part in the order of an epoch; int64, like ``epoch``."""
        workers, longer = self.num_workers, self.total % self.num_workers
        turns = tf.math.floormod(tf.range(workers, dtype=tf.int64) - longer * epoch, workers)
        sizes = self.least + tf.cast(turns < longer, tf.int64)
        first = tf.reduce_sum(sizes[: self.worker])
        return first, first + sizes[self.worker]


def epoch_of(
    counts: Mapping[str, int],
    read_block: ReadBlock,
    seed: int,
    share: Share,
    groups: ImageGroups | None = None,
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from the number of an epoch, int64, to the worker's records of that epoch.

    Args:
        counts: the number of records of each shard, by path. With a ``ShardCounts``, shards are
            read in blocks.
        read_block: returns the data set of a block's records.
        seed: decides the order, together with the epoch.
        share: the worker's part of every epoch.
        groups: the records of each image, if an epoch takes one of them; None for all records.
    """
    blocks = every_block(counts)
    sizes = blocks.count
    ends = np.cumsum(sizes)
    open_blocks = max(1, min(_OPEN_BLOCKS, len(sizes) // share.num_workers // 4))
    groups = groups and groups.as_tensors()

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(sizes)), seed=tf.stack([tf.cast(seed, tf.int64), epoch])
        )
        read, taken_sizes = as_written(lambda block, _: read_block(block)), tf.constant(sizes)
        if groups is not None:
            is_taken = groups.is_chosen(epoch, seed)
            before = tf.cumsum(tf.pad(tf.cast(is_taken, tf.int64), [[1, 0]]))
            taken_sizes = tf.gather(before, ends) - tf.gather(before, ends - sizes)
            read = _reader_of_taken(read_block, is_taken, ends - sizes, sizes)
        first, end = share.bounds(epoch)
        own_sizes = tf.gather(taken_sizes, order)
        begin = tf.cumsum(own_sizes, exclusive=True)
        skipped = tf.clip_by_value(first - begin, 0, own_sizes)
        taken = tf.clip_by_value(end - begin, 0, own_sizes) - skipped
        own = tf.boolean_mask(order, taken > 0)
        block = Block(
            tf.gather(blocks.shard, own),
            tf.gather(blocks.start, own),
            tf.gather(blocks.whole, own),
            tf.boolean_mask(skipped, taken > 0),
            tf.boolean_mask(taken, taken > 0),
        )
        return tf.data.Dataset.from_tensor_slices((block, own)).interleave(
            read,
            cycle_length=open_blocks,
            block_length=TURN,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    return epoch_records


def _reader_of_taken(
    read_block: ReadBlock, is_taken: tf.Tensor, first_records: np.ndarray, sizes: np.ndarray
) -> Callable[[Block, tf.Tensor], tf.data.Dataset]:
    """Like a ``ReadBlock``, of a block and its number; ``skip`` and ``count`` are of taken records.

    Args:
        read_block: reads whole blocks.
        is_taken: whether the epoch takes each record.
        first_records: the number of each block's first record.
        sizes: records of each block.
    """

    @as_written
    def read(block: Block, number: tf.Tensor) -> tf.data.Dataset:
        size = tf.gather(sizes, number)
        every = read_block(Block(*block[:3], tf.zeros_like(size), size))
        own = tf.slice(is_taken, [tf.gather(first_records, number)], [size])
        marked = tf.data.Dataset.zip(every, tf.data.Dataset.from_tensor_slices(own))
        taken = marked.filter(lambda _, is_own: is_own).map(lambda record, _: record)
        return taken.skip(block.skip).take(block.count)

    return read


def every_block(counts: Mapping[str, int]) -> Block:
    """Every block in full, in the order of the shards: int64 arrays."""
    known = counts.starts if isinstance(counts, ShardCounts) else {}
    readable = counts.whole if isinstance(counts, ShardCounts) else {}
    shards = sorted(counts)
    numbers, starts, whole, sizes = [], [], [], []
    for number, shard in enumerate(shards):
        own = known.get(shard) or [0]
        # The last block includes records that the statistics state beyond the end of the file.
        ends = [framing.BLOCK * place for place in range(1, len(own))] + [counts[shard]]
        numbers.append(np.full(len(own), number))
        starts.append(np.array(own))
        sizes.append(np.diff(ends, prepend=0))
        first = framing.BLOCK * np.arange(len(own))
        whole.append(np.clip(readable.get(shard, counts[shard]) - first, 0, sizes[-1]))
    joined = [np.concatenate(own).astype(np.int64) for own in (numbers, starts, whole, sizes)]
    return Block(joined[0], joined[1], joined[2], np.zeros_like(joined[3]), joined[3])
