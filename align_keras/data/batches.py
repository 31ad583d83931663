"""Endless training batches from encoded records: order, resuming, decoding, gaps, options.

What pairs and labelled images share. Batch N holds records N x batch_size onwards of the epochs'
order whatever is corrupt among them, so a run resumes at step N by skipping undecoded records.
Shapes are static.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from align_keras.errors import InputError

logger = logging.getLogger(__name__)

# Decoding works on chunks, each in one thread. A chunk holds its images in memory (64 MB at 289
# pixels); putting several together for a larger batch copies them once more.
_CHUNK = 64
# Autotuning would take half the memory of the machine (bytes).
_MEMORY_BUDGET = 2 << 30


@dataclasses.dataclass
class SkippedPairs:
    """Counts the pairs left out: corrupt record or image, caption empty or not UTF-8."""

    count: int = 0
    """Pairs, so far."""
    whole_batches: int = 0
    """Batches without any readable pair. The first one ends the data set with an error."""

    def add(self, number: int, readable: int = 1) -> None:
        """Counts the unreadable pairs of a batch and logs how many there are so far."""
        self.count += int(number)
        self.whole_batches += not readable
        logger.warning("skipped %d corrupt or unreadable pairs so far", self.count)

    def check(self) -> None:
        """Raises InputError after a batch without any readable pair.

        TensorFlow ends such a run with an error of its own, which does not name the data. Call
        this when training fails, not after it succeeds: batches are prepared ahead.
        """
        if self.whole_batches:
            raise InputError(
                "no pair of a whole batch is readable",
                remedy="look into the shards with recipes/inspect_data.py",
            )


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
        dataset: of positions and records.
        decode: a function of both that gives a dict of tensors, ``valid`` among them.
        blank: the same dict, not ``valid``. A record whose ``decode`` raises leaves one at the
            end of its chunk.
        batch_size: records a batch; a last one that is smaller is dropped.
    """
    chunk = max(size for size in range(1, _CHUNK + 1) if batch_size % size == 0)

    def decode_chunk(*records: Any) -> tf.data.Dataset:
        examples = tf.data.Dataset.from_tensor_slices(records).map(decode)
        blanks = tf.data.Dataset.from_tensors(blank).repeat(chunk)
        examples = examples.ignore_errors().concatenate(blanks)
        return examples.take(chunk).batch(chunk, drop_remainder=True)

    dataset = dataset.batch(chunk, drop_remainder=True).interleave(
        decode_chunk,
        cycle_length=tf.data.AUTOTUNE,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if chunk == batch_size:
        return dataset
    return dataset.batch(batch_size // chunk, drop_remainder=True).map(
        lambda batch: {
            name: tf.reshape(value, [batch_size, *value.shape[2:]]) for name, value in batch.items()
        }
    )


def fill_gaps(batch: dict[str, tf.Tensor], skipped: SkippedPairs) -> dict[str, tf.Tensor]:
    """Puts other records of the batch in the places of corrupt ones, and counts those.

    Shapes stay static and the batches after stay the same. Where false negatives are masked, a
    pair and its copy are not each other's negatives.
    """
    valid = batch.pop("valid")

    def fill() -> dict[str, tf.Tensor]:
        readable = tf.cast(tf.where(valid)[:, 0], tf.int32)
        missing = tf.math.count_nonzero(~valid)
        counted = tf.numpy_function(skipped.add, [missing, tf.size(readable)], [], stateful=True)
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
    # Each reader is told its own share; tf.distribute must not share it out again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
