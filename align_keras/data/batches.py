"""Endless training batches from encoded records: order, resuming, decoding, gaps, options.

What pairs and labelled images share. Batch N holds records N x batch_size onwards of the epochs'
order whatever is corrupt among them, so a run resumes at step N by skipping undecoded records.
Shapes are static.
"""

import collections
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from align_keras.errors import InputError
from align_keras.preprocessing.tracing import as_written

logger = logging.getLogger(__name__)

# Decoding works on chunks, each in one thread. A chunk holds its images in memory (64 MB at 289
# pixels); putting several together for a larger batch copies them once more.
_CHUNK = 64
# So many files are named in a message.
_MOST_FILES = 5
# Autotuning would take half the memory of the machine (bytes).
_MEMORY_BUDGET = 2 << 30


class SkippedPairs:
    """Counts the pairs left out: corrupt record or image, caption empty or not UTF-8.

    Batches are prepared ahead of the step that takes them, so each batch is counted by itself.
    Safe to call from several threads.

    Attributes:
        whole_batches: batches without any readable pair. The first one ends the data set with an
            error.
    """

    def __init__(self) -> None:
        self.whole_batches = 0
        self._lock = threading.Lock()
        self._by_batch: dict[int, collections.Counter[str]] = {}
        self._taken: collections.Counter[str] = collections.Counter()

    @property
    def count(self) -> int:
        """Pairs so far, those of batches included that no step has taken yet."""
        with self._lock:
            return sum(found.total() for found in (self._taken, *self._by_batch.values()))

    def add(self, batch: int, sources: Sequence[bytes], kept: Sequence[bytes]) -> None:
        """Counts the pairs of a batch that are left out, by file, and logs how many so far.

        Args:
            batch: its number.
            sources: the file of each of its records.
            kept: the file of each of those that are readable.
        """
        lost = collections.Counter(list(sources)) - collections.Counter(list(kept))
        with self._lock:
            by_name = {file.decode(errors="replace"): number for file, number in lost.items()}
            self._by_batch[int(batch)] = collections.Counter(by_name)
            self.whole_batches += not len(kept)
        logger.warning("skipped %d corrupt or unreadable pairs so far", self.count)

    def take(self, batch: int) -> collections.Counter[str]:
        """The pairs of all batches before one, by file: what steps have met so far."""
        with self._lock:
            for number in [number for number in self._by_batch if number < batch]:
                self._taken += self._by_batch.pop(number)
            return collections.Counter(self._taken)

    def check(self) -> None:
        """Raises InputError after a batch without any readable pair.

        TensorFlow ends such a run with an error of its own, which does not name the data. Call
        this when training fails, not after it succeeds: batches are prepared ahead.
        """
        if self.whole_batches:
            with self._lock:
                lost = sum(self._by_batch.values(), self._taken)
            raise InputError(
                f"no pair of a whole batch is readable; skipped so far: {most_of(lost)}",
                remedy="look into the shards with recipes/inspect_data.py",
            )


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
        position: of the first record to give, as if those before had been taken.
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
) -> tf.data.Dataset:
    """Batches of records decoded in parallel chunks.

    Args:
        dataset: of positions and records; a record is a tuple whose last string names its file.
        decode: a function of both that gives a dict of tensors, ``valid`` among them.
        blank: the same dict, not ``valid``. A record whose ``decode`` raises leaves one at the
            end of its chunk.
        batch_size: records a batch; a last one that is smaller is dropped.

    Returns:
        Batches of what ``decode`` gives, with two fields more, which ``fill_gaps`` and
        ``without_sources`` take out: ``sources``, the file of each record of the batch in the order
        of the records, and ``kept``, the file of the record that was decoded.
    """
    chunk = max(size for size in range(1, _CHUNK + 1) if batch_size % size == 0)

    def decode_record(position: tf.Tensor, record: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        return {**decode(position, record), "kept": record[-1]}

    @as_written
    def decode_chunk(positions: tf.Tensor, records: tuple[tf.Tensor, ...]) -> tf.data.Dataset:
        examples = tf.data.Dataset.from_tensor_slices((positions, records)).map(decode_record)
        blanks = tf.data.Dataset.from_tensors({**blank, "kept": ""}).repeat(chunk)
        examples = examples.ignore_errors().concatenate(blanks)
        examples = examples.take(chunk).batch(chunk, drop_remainder=True)
        return examples.map(lambda batch: {**batch, "sources": records[-1]})

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


def without_sources(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A batch of ``decoded`` without the files of its records."""
    return {name: value for name, value in batch.items() if name not in ("sources", "kept")}


def fill_gaps(
    number: tf.Tensor, batch: dict[str, tf.Tensor], skipped: SkippedPairs
) -> dict[str, tf.Tensor]:
    """Puts other records of the batch in the places of corrupt ones, and counts those.

    Shapes stay static and the batches after stay the same. Where false negatives are masked, a
    pair and its copy are not each other's negatives.

    Args:
        number: of the batch, int64, by which its skipped pairs are counted.
        batch: as of ``decoded``.
        skipped: counts them.
    """
    sources, kept = batch["sources"], batch["kept"]
    batch = without_sources(batch)
    valid = batch.pop("valid")

    def fill() -> dict[str, tf.Tensor]:
        readable = tf.cast(tf.where(valid)[:, 0], tf.int32)
        lost = [number, sources, tf.boolean_mask(kept, valid)]
        counted = tf.numpy_function(skipped.add, lost, [], stateful=True)
        with tf.control_dependencies([counted]):
            some = tf.debugging.assert_positive(
                tf.size(readable), "no pair of a whole batch is readable"
            )
        places = tf.range(tf.size(valid))
        with tf.control_dependencies([some]):
            substitutes = tf.gather(readable, places % tf.size(readable))
        source = tf.where(valid, places, substitutes)
        return {name: tf.gather(value, source) for name, value in batch.items()}

    filled = tf.cond(tf.reduce_all(valid), lambda: dict(batch), fill)
    return {name: tf.ensure_shape(filled[name], value.shape) for name, value in batch.items()}


def with_options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set prefetched, with a limit on its memory, and never shared out by files."""
    options = tf.data.Options()
    options.autotune.ram_budget = _MEMORY_BUDGET
    # Each reader is given its own share; tf.distribute must not share it out again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
