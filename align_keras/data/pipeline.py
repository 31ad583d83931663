"""``tf.data`` pipelines from shards to batches: plain calls in order, deterministic by seed.

Shards (shuffled by epoch) -> interleaved records -> shuffle -> decode, resize, crop, flip ->
batch -> tokenise -> prefetch. Batch N holds records N x batch_size onwards of the epoch's
order whatever is corrupt among them, so that a run resumes at step N by skipping undecoded
records. Shapes are static.
"""

import dataclasses
import itertools
import logging
import math

import tensorflow as tf

from align_keras.data import records

logger = logging.getLogger(__name__)

# Decoding works on chunks, each in one thread. A chunk holds its images in memory (64 MB at 289
# pixels); putting several together for a larger batch copies them once more.
_CHUNK = 64
_READ_BLOCK = 16
_OPEN_SHARDS = 16
# Autotuning would take half the memory of the machine (bytes).
_MEMORY_BUDGET = 2 << 30


@dataclasses.dataclass
class SkippedPairs:
    """Counts the pairs left out: corrupt record or image, caption empty or not UTF-8."""

    count: int = 0

    def add(self, number):
        """Adds to the count and logs it."""
        self.count += int(number)
        logger.warning("skipped %d corrupt or unreadable pairs so far", self.count)


def shard_counts(shards):
    """The number of records of each shard, by path."""
    return {shard: records.count_records(shard) for shard in shards}


def training_dataset(
    counts,
    preprocessor,
    batch_size,
    *,
    seed=0,
    start_batch=0,
    shuffle_buffer=10_000,
    worker=0,
    num_workers=1,
    skipped=None,
):
    """Endless batches of augmented pairs.

    Args:
        counts: the number of records of each shard, by path.
        preprocessor: an ``AlignPreprocessor``.
        batch_size: pairs a batch.
        seed: decides the order of shards and records, the crops and the flips.
        start_batch: the first batch to give, as if those before had been taken.
        shuffle_buffer: records, still encoded, among which the order is random.
        worker: this reader's place, from 0, among ``num_workers`` that share the data.
        num_workers: readers in all; each takes whole shards, or every so-manieth record of
            all where there are fewer shards than readers.
        skipped: a ``SkippedPairs`` to count in.

    Returns:
        A ``tf.data.Dataset`` of dicts: ``images`` ``(batch, size, size, 3)``, ``token_ids``,
        ``segment_ids``, ``padding_mask`` ``(batch, sequence)``, ``image_ids`` and
        ``caption_ids`` int64 ``(batch,)``, 0 for a record without ``image_id``; captions that
        differ in case or outer blanks alone share an id.

    Raises:
        ValueError: if this reader's share of the data is smaller than a batch.
    """
    by_shard = len(counts) >= num_workers
    if by_shard:
        shards = sorted(counts)[worker::num_workers]
        counts = {shard: counts[shard] for shard in shards}
    epoch_length = sum(counts.values())
    if not by_shard:
        epoch_length = len(range(worker, epoch_length, num_workers))
    if epoch_length < batch_size:
        raise ValueError(
            f"a batch of {batch_size} pairs is more than the {epoch_length} that reader {worker} "
            f"of {num_workers} has"
        )
    first_epoch, skip = divmod(start_batch * batch_size, epoch_length)

    def epoch_records(epoch):
        # Of this traced function alone: makes the order independent of the global seed, which
        # `shuffle` would mix in, and fail on where it is 0 beside a tensor.
        tf.random.set_seed(1)
        order = tf.random.experimental.stateless_shuffle(
            sorted(counts), seed=tf.stack([tf.cast(seed, tf.int64), epoch])
        )
        dataset = tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda shard: _shard_records(shard, counts),
            cycle_length=min(_OPEN_SHARDS, len(counts)),
            block_length=_READ_BLOCK,
        )
        if not by_shard:
            dataset = dataset.shard(num_workers, worker)
        return dataset.shuffle(shuffle_buffer, seed=seed + epoch, reshuffle_each_iteration=False)

    dataset = tf.data.Dataset.range(first_epoch, 1 << 40).flat_map(epoch_records)
    dataset = dataset.skip(skip).enumerate(start_batch * batch_size)

    def decode(position, record, image_id):
        example_seed = tf.stack([tf.cast(seed, tf.int64) + worker, position])
        return _decode_pair(
            position,
            record,
            image_id,
            lambda image: preprocessor.decode_and_augment_image(image, example_seed),
            preprocessor.image_size,
        )

    dataset = _decoded_batches(dataset, decode, preprocessor, batch_size)
    dataset = dataset.map(
        lambda batch: _tokenize(_fill_gaps(batch, skipped or SkippedPairs()), preprocessor),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())


def evaluation_dataset(counts, preprocessor, batch_size):
    """Every pair once, in the shards' order, centre-cropped.

    The batches are those of ``training_dataset`` with two further fields: ``positions``, the
    place of a pair among all records, and ``valid``, False for a pair that training would skip
    and for the padding of the last batch.
    """
    dataset = tf.data.Dataset.from_tensor_slices(sorted(counts)).flat_map(
        lambda shard: _shard_records(shard, counts)
    )
    total = sum(counts.values())
    num_batches = math.ceil(total / batch_size)
    padding = num_batches * batch_size - total
    blanks = tf.data.Dataset.from_tensors((b"", b"")).repeat(padding)
    dataset = dataset.concatenate(blanks).enumerate()

    def decode(position, record, image_id):
        return _decode_pair(
            position, record, image_id, preprocessor.decode_image, preprocessor.image_size
        )

    dataset = _decoded_batches(dataset, decode, preprocessor, batch_size)
    dataset = dataset.map(lambda batch: _tokenize(batch, preprocessor))
    # Keras warns at the end of data whose length it was not told.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())


@tf.autograph.experimental.do_not_convert  # it holds a generator, which AutoGraph warns about
def _shard_records(shard, counts):
    """A shard's serialised records and their image ids, as strings.

    The generator hands over blocks, which cost less. It reads the ids, which may be strings in
    one record and numbers in the next: TensorFlow's parser takes one type.
    """

    def blocks(path):
        path = path.decode()
        reader = records.read_records(path, counts[path])
        while block := list(itertools.islice(reader, _READ_BLOCK)):
            yield block, [records.image_id_of(record) for record in block]

    return tf.data.Dataset.from_generator(
        blocks, args=(shard,), output_signature=(tf.TensorSpec([None], tf.string),) * 2
    ).unbatch()


def _decode_pair(position, record, image_id, decode_image, image_size):
    """Parses one record and decodes its image; raises on what is corrupt.

    ``b""``, which stands for a record that could not be read, gives a pair that is not valid, as
    does a caption that is empty or white space: it would be the positive of any image.
    """
    fields = tf.io.parse_single_example(
        record,
        {
            "jpg": tf.io.FixedLenFeature([], tf.string, default_value=""),
            "txt": tf.io.FixedLenFeature([], tf.string, default_value=""),
        },
    )
    # Raises on a caption that is not UTF-8.
    caption = tf.strings.unicode_transcode(fields["txt"], "UTF-8", "UTF-8", errors="strict")
    has_words = ~tf.strings.regex_full_match(caption, r"[\s\pZ]*")
    valid = (fields["jpg"] != "") & has_words
    return {
        "positions": position,
        "images": tf.cond(
            valid,
            lambda: decode_image(fields["jpg"]),
            lambda: tf.zeros([image_size, image_size, 3]),
        ),
        "captions": caption,
        "image_ids": _fingerprint(image_id),
        "caption_ids": _fingerprint(tf.strings.strip(tf.strings.lower(caption))),
        "valid": valid,
    }


def _fingerprint(string):
    """A 62-bit hash, above 0; 0 for the empty string: replicas exchange numbers only."""
    number = tf.strings.to_hash_bucket_fast(string, (1 << 62) - 1) + 1
    return tf.where(string == "", tf.constant(0, tf.int64), number)


def _decoded_batches(dataset, decode, preprocessor, batch_size):
    """Decodes positions, records and ids in parallel chunks.

    A corrupt pair leaves a blank at the chunk's end, which is not ``valid``.
    """
    chunk = max(size for size in range(1, _CHUNK + 1) if batch_size % size == 0)
    size = preprocessor.image_size
    blank = {
        "positions": tf.constant(-1, tf.int64),
        "images": tf.zeros([size, size, 3]),
        "captions": "",
        "image_ids": tf.constant(0, tf.int64),
        "caption_ids": tf.constant(0, tf.int64),
        "valid": False,
    }

    def decode_chunk(positions, pairs):
        pairs = tf.data.Dataset.from_tensor_slices((positions, *pairs)).map(decode)
        blanks = tf.data.Dataset.from_tensors(blank).repeat(chunk)
        return (
            pairs.ignore_errors().concatenate(blanks).take(chunk).batch(chunk, drop_remainder=True)
        )

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


def _fill_gaps(batch, skipped):
    """Puts other pairs of the batch in the places of corrupt ones, and counts those.

    Shapes stay static and the batches after stay the same. Where false negatives are masked
    a pair and its double are not each other's negatives.
    """
    valid = batch.pop("valid")
    batch.pop("positions")

    def fill():
        missing = tf.math.count_nonzero(~valid)
        readable = tf.cast(tf.where(valid)[:, 0], tf.int32)
        tf.debugging.assert_positive(
            tf.size(readable),
            "--train-data: no pair of a whole batch is readable; look into the shards",
        )
        counted = tf.numpy_function(skipped.add, [missing], [], stateful=True)
        places = tf.range(tf.size(valid))
        with tf.control_dependencies([counted]):
            substitutes = tf.gather(readable, places % tf.size(readable))
        source = tf.where(valid, places, substitutes)
        return {name: tf.gather(value, source) for name, value in batch.items()}

    filled = tf.cond(tf.reduce_all(valid), lambda: dict(batch), fill)
    return {name: tf.ensure_shape(filled[name], value.shape) for name, value in batch.items()}


def _tokenize(batch, preprocessor):
    captions = batch.pop("captions")
    return {**batch, **preprocessor.tokenize(captions)}


def _options():
    options = tf.data.Options()
    options.autotune.ram_budget = _MEMORY_BUDGET
    # Each reader is told its own share; tf.distribute must not share it out again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
