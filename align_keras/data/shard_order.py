"""Which records a worker reads in an epoch, and in which order.

A shard is cut into blocks of up to 128 consecutive records. An epoch is all blocks of all shards
in a random order, which seed and epoch decide. That order is cut into equal parts (one per worker),
which may begin and end inside a block: every epoch shows every record to exactly one worker, and
parts differ by one record at most, however many shards there are. A worker has up to 16 blocks of
its part open and takes 16 records of each in turn; ``batches`` then shuffles them in a buffer.

A block is read from its first byte on. Where that is not known, of a compressed shard and of a
remote one that is counted by its statistics, the shard is one block. Where there are few blocks,
fewer are open at a time: the order of those that are open together is the same in every epoch.

An epoch may also be of images, each with one of its records. Blocks are then read whole, the
records that the epoch does not take are left out, and places and parts count the others.

The plan is made of TensorFlow's ops, and a block is a path, a byte and a number of records: any
reader of records can follow it.
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

#: Version of the order; a run that began with another one does not resume.
VERSION = 2

_OPEN_BLOCKS = 16
#: Records that are taken from an open block in turn.
TURN = 16


class Block(NamedTuple):
    """Consecutive records of a shard: int64 tensors, scalars or of one length."""

    shard: tf.Tensor
    """The shard's number, its place in the order of the paths."""
    start: tf.Tensor
    """The byte where the block begins."""
    whole: tf.Tensor
    """How many of its records, from the first on, are not cut off as far as is known."""
    skip: tf.Tensor
    """How many records to pass over."""
    count: tf.Tensor
    """How many to give."""


#: Reads a block.
ReadBlock = Callable[[Block], tf.data.Dataset]


class ShardCounts(dict[str, int]):
    """The number of records of each shard, by path, and the bytes where its blocks begin.

    Args:
        shards: paths.

    Attributes:
        starts: the bytes where the blocks of each shard begin, by path.
        digests: those of its records, as in ``framing.ShardIndex``.
        whole: how many of its records are not cut off, where that is known.
        sizes: sizes of the shards, bytes; 0 where that is not known.
        watched: the shards as files. One that was touched, or put back from a copy, has not changed
            if its records are the same.
    """

    def __init__(self, shards: Iterable[str]) -> None:
        shards = list(shards)
        # Before they are read: a change in between is then one too.
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
    """The counts of some of the shards, with all that is known of them."""
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

    Parts differ by one record where the workers do not divide the records. The longer ones go from
    worker to worker, so that after any number of epochs all have read equally many, to one record.
    """

    total: int
    """The records of an epoch."""
    worker: int
    """From 0."""
    num_workers: int

    @property
    def least(self) -> int:
        """The least number of records in the worker's part."""
        return self.total // self.num_workers

    def read_before(self, epoch: int) -> int:
        """The records that the worker reads in all epochs before one."""
        longer = self.total % self.num_workers * epoch
        return self.least * epoch + (longer - self.worker - 1) // self.num_workers + 1

    def place_of(self, position: int) -> tuple[int, int]:
        """The epoch of a worker's record, and how many the worker reads in that epoch before it."""
        epoch = position * self.num_workers // self.total
        while self.read_before(epoch) > position:
            epoch -= 1
        while self.read_before(epoch + 1) <= position:
            epoch += 1
        return epoch, position - self.read_before(epoch)

    def bounds(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where the part begins and ends in the order of an epoch, int64 as ``epoch`` is."""
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
    """A function from the number of an epoch, int64, to a worker's records in it.

    Args:
        counts: the number of records of each shard, by path; where a ``ShardCounts``, shards are
            read in blocks.
        read_block: gives the data set of a block's records.
        seed: decides the order, with the epoch.
        share: the worker's part.
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
        every = read_block(block._replace(skip=tf.zeros_like(size), count=size))
        own = tf.slice(is_taken, [tf.gather(first_records, number)], [size])
        marked = tf.data.Dataset.zip(every, tf.data.Dataset.from_tensor_slices(own))
        taken = marked.filter(lambda _, is_own: is_own).map(lambda record, _: record)
        return taken.skip(block.skip).take(block.count)

    return read


def every_block(counts: Mapping[str, int]) -> Block:
    """Every block whole, in the shards' order: int64 arrays."""
    known = counts.starts if isinstance(counts, ShardCounts) else {}
    readable = counts.whole if isinstance(counts, ShardCounts) else {}
    shards = sorted(counts)
    numbers, starts, whole, sizes = [], [], [], []
    for number, shard in enumerate(shards):
        own = known.get(shard) or [0]
        # The last one also has what the statistics state beyond the end of the file.
        ends = [framing.BLOCK * place for place in range(1, len(own))] + [counts[shard]]
        numbers.append(np.full(len(own), number))
        starts.append(np.array(own))
        sizes.append(np.diff(ends, prepend=0))
        first = framing.BLOCK * np.arange(len(own))
        whole.append(np.clip(readable.get(shard, counts[shard]) - first, 0, sizes[-1]))
    joined = [np.concatenate(own).astype(np.int64) for own in (numbers, starts, whole, sizes)]
    return Block(joined[0], joined[1], joined[2], np.zeros_like(joined[3]), joined[3])
