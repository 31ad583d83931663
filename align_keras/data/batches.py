"""Endless training batches from encoded records: order, resuming, decoding, gaps, options.

Pairs and labelled images share this code. Batch N holds the records from N x batch_size onwards in
the order of the epochs. Corrupt records do not change that order, so a run resumes at step N by
skipping undecoded records. All shapes are static.
"""

import collections
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from align_keras.preprocessing.tracing import as_written

# Records are decoded in chunks, each chunk in one thread. A chunk holds its images in memory (64 MB
# at 289 pixels). A batch of several chunks copies the images once more.
_CHUNK = 64
# Most files named in one message.
_MOST_FILES = 5
_UNREADABLE = "no record of a whole batch is readable"
# Bytes. By default, autotuning would take half of the machine's memory.
_MEMORY_BUDGET = 2 << 30


class SkippedRecords:
    """Counts lost records per batch, on the host.

    Batches are prepared ahead of the training step, so each batch has its own count. Safe to call
    from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_batch: dict[int, collections.Counter[str]] = {}
        self._taken: collections.Counter[str] = collections.Counter()

    def add(self, batch: int, lost: Sequence[bytes]) -> None:
        """Counts the lost records of a batch.

        Args:
            batch: number of the batch.
            lost: for each record, the file if the record is lost, else an empty string.
        """
        files = (file.decode(errors="replace") for file in lost if file)
        with self._lock:
            self._by_batch[int(batch)] = collections.Counter(files)

    def take(self, batch: int) -> collections.Counter[str]:
        """Counts the records lost in all batches before ``batch``, by file."""
        with self._lock:
            for number in [number for number in self._by_batch if number < batch]:
                self._taken += self._by_batch.pop(number)
            return collections.Counter(self._taken)


def files_of_unreadable_batch(error: tf.errors.OpError) -> list[int] | None:
    """Numbers of some files of a batch that has no readable record.

    None if the error is not the one that ``fill_gaps`` raises for such a batch.
    """
    found = re.search(rf"\[{_UNREADABLE}\] \[([^\]]*)\]", error.message)
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else None


def most_of(lost: collections.Counter[str]) -> str:
    """The files with the most lost pairs, for a message: ``a.tfrecord (30), b.tfrecord (2)``."""
    named = [f"{file} ({number:,})" for file, number in lost.most_common(_MOST_FILES)]
    more = len(lost) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")


def endless(
    epoch_records: Callable[[tf.Tensor], tf.data.Dataset],
    place_of: Callable[[int], tuple[int, int]],
    position: int,
    seed: int,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """The shuffled records of successive epochs, each with its position in the endless order.

    Args:
        epoch_records: returns the data set of an epoch's records, given the number of the epoch.
        place_of: returns the epoch of a position, and the number of records before it in that
            epoch.
        position: position of the first record to return, as if all earlier ones had been taken.
        seed: decides the order in the buffer, together with the number of the epoch.
        shuffle_buffer: size of the shuffle buffer, in records.

    Returns:
        A ``tf.data.Dataset`` of positions, int64, and records.
    """
    first_epoch, skip = place_of(position)

    @as_written
    def epoch_in_order(epoch: tf.Tensor) -> tf.data.Dataset:
        # Affects this traced function alone. It makes the order independent of the global seed,
        # which `shuffle` would mix in. `shuffle` also fails if the global seed is 0 and its own is
        # a tensor.
        tf.random.set_seed(1)
        dataset = epoch_records(epoch)
        return dataset.shuffle(shuffle_buffer, seed=seed + epoch, reshuffle_each_iteration=False)

    dataset = tf.data.Dataset.range(first_epoch, 1 << 40).flat_map(epoch_in_order)
    return dataset.skip(skip).enumerate(position)


def decoded(
    dataset: tf.data.Dataset,
    decode: Callable[..., dict[str, tf.Tensor]],
    blank: dict[str, Any],
    batch_size: int,
    read: Callable[..., tf.data.Dataset] | None = None,
) -> tf.data.Dataset:
    """Batches of records decoded in parallel chunks.

    Args:
        dataset: yields positions and records. A record is a tuple whose last element is its file,
            as a non-empty string or a number above 0.
        decode: takes a position and a record; returns a dict of tensors that includes ``valid``.
        blank: the same dict without ``valid``. For every record on which ``decode`` raises, one is
            added at the end of the chunk.
        batch_size: records per batch; a smaller last batch is dropped.
        read: turns the records of a chunk into a data set of what ``decode`` takes.

    Returns:
        Batches of the results of ``decode``, with one more field, ``lost``: the file of each record
        that is not ``valid``; 0 or an empty string for the others.
    """
    chunk = max(size for size in range(1, _CHUNK + 1) if batch_size % size == 0)
    nowhere = tf.constant(-1, tf.int64)

    def decode_record(position: tf.Tensor, record: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        example = decode(position, record)
        return {**example, "kept": tf.where(example["valid"], position, nowhere)}

    @as_written
    def decode_chunk(positions: tf.Tensor, records: tuple[tf.Tensor, ...]) -> tf.data.Dataset:
        each = read(*records) if read else tf.data.Dataset.from_tensor_slices(records)
        examples = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(positions), each)
        blanks = tf.data.Dataset.from_tensors({**blank, "kept": nowhere}).repeat(chunk)
        examples = examples.map(decode_record).ignore_errors().concatenate(blanks)
        examples = examples.take(chunk).batch(chunk, drop_remainder=True)

        def with_lost(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            is_kept = tf.reduce_any(positions[:, None] == batch.pop("kept")[None, :], axis=1)
            files = tf.ensure_shape(records[-1], [chunk])
            return {**batch, "lost": tf.where(is_kept, tf.zeros_like(files), files)}

        return examples.map(as_written(with_lost))

    dataset = dataset.batch(chunk, drop_remainder=True).interleave(
        decode_chunk,
        cycle_length=tf.data.AUTOTUNE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if chunk == batch_size:
        return dataset

    @as_written
    def join_chunks(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {n: tf.reshape(v, [batch_size, *v.shape[2:]]) for n, v in batch.items()}

    return dataset.batch(batch_size // chunk, drop_remainder=True).map(join_chunks)


def fill_gaps(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Replaces corrupt records by other records of the same batch.

    Shapes stay static, and later batches stay the same. If false negatives are masked, a pair and
    its copy are not negatives of each other.

    Args:
        batch: as returned by ``decoded``.

    Returns:
        The batch without ``valid``. A batch without a readable record raises an
        InvalidArgumentError; see ``files_of_unreadable_batch``.
    """
    batch = dict(batch)
    valid, lost = batch.pop("valid"), batch.pop("lost")

    def fill() -> dict[str, tf.Tensor]:
        readable = tf.cast(tf.where(valid)[:, 0], tf.int32)
        files = tf.unique(lost).y
        found = tf.debugging.Assert(tf.size(readable) > 0, [_UNREADABLE, files], _MOST_FILES)
        places = tf.range(tf.size(valid))
        with tf.control_dependencies([found]):
            substitutes = tf.gather(readable, places % tf.size(readable))
        source = tf.where(valid, places, substitutes)
        return {name: tf.gather(value, source) for name, value in batch.items()}

    filled = tf.cond(tf.reduce_all(valid), lambda: dict(batch), fill)
    filled = {name: tf.ensure_shape(filled[name], value.shape) for name, value in batch.items()}
    return {**filled, "lost": lost}


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set with prefetching, a memory limit, and no automatic sharding by file."""
    options = tf.data.Options()
    options.autotune.ram_budget = _MEMORY_BUDGET
    # Each reader already has its own share of the data. tf.distribute must not divide it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
