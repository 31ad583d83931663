"""Endless training batches from encoded records: order, resuming, decoding, gaps, options.

What pairs and labelled images share. Batch N holds records N x batch_size onwards of the epochs'
order whatever is corrupt among them, so a run resumes at step N by skipping undecoded records.
Shapes are static.
"""

import collections
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from align_keras.preprocessing.tracing import as_written

# Decoding works on chunks, each in one thread. A chunk holds its images in memory (64 MB at 289
# pixels); putting several together for a larger batch copies them once more.
_CHUNK = 64
# So many files are named in a message.
_MOST_FILES = 5
_UNREADABLE = "no record of a whole batch is readable"
# Autotuning would take half the memory of the machine (bytes).
_MEMORY_BUDGET = 2 << 30


class SkippedRecords:
    """Counts lost records on the host, batch by batch.

    Batches are prepared ahead of the step that takes them, so each batch is counted by itself.
    Safe to call from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_batch: dict[int, collections.Counter[str]] = {}
        self._taken: collections.Counter[str] = collections.Counter()

    def add(self, batch: int, lost: Sequence[bytes]) -> None:
        """Counts the records of a batch that are left out.

        Args:
            batch: its number.
            lost: the file of each, and empty strings.
        """
        files = (file.decode(errors="replace") for file in lost if file)
        with self._lock:
            self._by_batch[int(batch)] = collections.Counter(files)

    def take(self, batch: int) -> collections.Counter[str]:
        """The records that all batches before one have lost, by file."""
        with self._lock:
            for number in [number for number in self._by_batch if number < batch]:
                self._taken += self._by_batch.pop(number)
            return collections.Counter(self._taken)


def files_of_unreadable_batch(error: tf.errors.OpError) -> list[int] | None:
    """The numbers of some files of a batch without a readable record.

    None for another error than that of ``fill_gaps`` about such a batch.
    """
    found = re.search(rf"\[{_UNREADABLE}\] \[([^\]]*)\]", error.message)
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else None


def most_of(lost: collections.Counter[str]) -> str:
    """The files that lost most pairs, for a message: ``a.tfrecord (30), b.tfrecord (2)``."""
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
    """The records of epoch after epoch, shuffled, each with its position since the first.

    Args:
        epoch_records: gives the data set of an epoch's records, from its number.
        place_of: the epoch of a position, and how many records of that epoch are before it.
        position: position of the first record to give, as if those before had been taken.
        seed: decides the order in the buffer, with the number of the epoch.
        shuffle_buffer: records among which the order is random.

    Returns:
        A ``tf.data.Dataset`` of positions, int64, and records.
    """
    first_epoch, skip = place_of(position)

    @as_written
    def epoch_in_order(epoch: tf.Tensor) -> tf.data.Dataset:
        # Of this traced function alone: makes the order independent of the global seed, which
        # `shuffle` would mix in, and fail on where it is 0 beside a tensor.
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
        dataset: its elements are positions and records. A record is a tuple whose last part tells
            its file, as a string that is not empty or a number above 0.
        decode: a function of both that gives a dict of tensors, ``valid`` among them.
        blank: the same dict, not ``valid``. A record whose ``decode`` raises leaves one at the
            end of its chunk.
        batch_size: records per batch; a last one that is smaller is dropped.
        read: makes of the records of a chunk a data set of those that ``decode`` takes.

    Returns:
        Batches of what ``decode`` gives, with one field more, ``lost``: the file of each record
        that is not ``valid``, and zeros or empty strings beside.
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
    """Puts other records of the batch in the places of corrupt ones.

    Shapes stay static and the batches after stay the same. Where false negatives are masked, a
    pair and its copy are not each other's negatives.

    Args:
        batch: as returned by ``decoded``.

    Returns:
        The batch without ``valid``. One without any readable record raises an
        InvalidArgumentError, see ``files_of_unreadable_batch``.
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
    """The data set prefetched, with a limit on its memory, and never shared out by files."""
    options = tf.data.Options()
    options.autotune.ram_budget = _MEMORY_BUDGET
    # Each reader is given its own share; tf.distribute must not share it out again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
