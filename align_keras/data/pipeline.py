"""``tf.data`` pipelines from shards to batches: plain calls in order, deterministic by seed.

Blocks of records (shuffled by epoch) -> interleaved records -> shuffle -> decode, resize, crop,
flip -> batch -> tokenise -> prefetch. Batch N depends on N alone: see ``shard_order`` and
``batches``.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from align_keras.data import batches, mixing, paper_rules, shard_order
from align_keras.data.block_reader import block_reader
from align_keras.data.image_groups import ImageGroups
from align_keras.data.pairs import Pair, parse_pairs
from align_keras.data.shard_order import ShardCounts
from align_keras.errors import InputError
from align_keras.preprocessing.fields import PIXELS
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tracing import as_written

_NO_PAIR = Pair(*np.full((3, 1), b""))


def shard_counts(shards: Sequence[str]) -> ShardCounts:
    """The number of records of each shard, by path, and the places where their blocks begin."""
    return ShardCounts(shards)


def training_dataset(
    counts: Mapping[str, int],
    preprocessor: AlignPreprocessor,
    batch_size: int,
    *,
    seed: int = 0,
    start_batch: int = 0,
    shuffle_buffer: int = 10_000,
    worker: int = 0,
    num_workers: int = 1,
    sources: Sequence[mixing.Source] = (),
    groups: Sequence[ImageGroups] = (),
) -> tf.data.Dataset:
    """Endless batches of augmented pairs.

    Args:
        counts: the number of records of each shard, by path. A result of ``shard_counts`` also has
            the places of blocks. With any other mapping, each shard is read in one piece, so that
            few shards are hardly shuffled.
        preprocessor: an ``AlignPreprocessor``.
        batch_size: pairs per batch.
        seed: decides the order of records, the crops and the flips.
        start_batch: the first batch to return, as if all earlier ones had been taken.
        shuffle_buffer: size of the shuffle buffer, in encoded records.
        worker: index of this reader, from 0, among ``num_workers`` that share the data.
        num_workers: number of readers. In every epoch each reader takes an equal share of the
            records, and the shares change from epoch to epoch.
        sources: parts of the shards that are mixed by weight, each with its own epochs. If empty,
            all shards are one source.
        groups: the images of each source, if an epoch takes one record of each; none: an epoch
            takes every record.

    Returns:
        A ``tf.data.Dataset`` of dicts: ``pixels``, uint8, ``(batch, size, size, 3)``;
        ``token_ids``, ``segment_ids`` and ``padding_mask``, ``(batch, sequence)``; ``image_ids``
        and ``caption_ids``, int64, ``(batch,)``; and ``lost``, int32, ``(batch,)``. An image id is
        0 for a record without ``image_id``. Captions with the same word pieces share an id.
        ``lost`` is 0, or, for a pair that could not be used, 1 + the index of its shard among the
        sorted paths. Other pairs of the batch replace lost ones. No Python runs while the data set
        is read.

    Raises:
        InputError: if this reader's share of the data is smaller than a batch.
    """

    def augment(image: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        example_seed = tf.stack([tf.cast(seed, tf.int64) + worker, position])
        return preprocessor.decode_random_crop(image, example_seed)

    @as_written
    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch.pop("positions")
        return _tokenize(batches.fill_gaps(batch), preprocessor)

    position = start_batch * batch_size
    reader = seed, worker, num_workers
    if sources:
        dataset = _mixed(counts, sources, groups, position, shuffle_buffer, reader)
    else:
        group = groups[0] if groups else None
        dataset = _of_source(counts, group, position, shuffle_buffer, batch_size, reader)
    dataset = _decoded(dataset, augment, preprocessor, batch_size)
    return batches.with_options(dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE))


def _of_source(
    counts: Mapping[str, int],
    groups: ImageGroups | None,
    position: int,
    shuffle_buffer: int,
    least: int,
    reader: tuple[int, int, int],
) -> tf.data.Dataset:
    """``batches.endless`` of a source.

    Args:
        counts: of its shards.
        groups: its images, if an epoch takes one record of each.
        position: as in ``batches.endless``.
        shuffle_buffer: as in ``batches.endless``.
        least: pairs that the reader must have in an epoch.
        reader: ``seed``, ``worker`` and ``num_workers`` of ``training_dataset``.
    """
    seed, worker, num_workers = reader
    total = groups.images if groups else sum(counts.values())
    share = shard_order.Share(total, worker, num_workers)
    if share.least < least:
        raise InputError(
            f"a batch of {least} pairs is more than the {share.least} that reader {worker} "
            f"of {num_workers} has",
            remedy="lower <batch_size> or give more data",
        )
    epoch_records = shard_order.epoch_of(counts, block_reader(counts), seed, share, groups)
    return batches.endless(epoch_records, share.place_of, position, seed, shuffle_buffer)


def _mixed(
    counts: Mapping[str, int],
    sources: Sequence[mixing.Source],
    groups: Sequence[ImageGroups],
    position: int,
    shuffle_buffer: int,
    reader: tuple[int, int, int],
) -> tf.data.Dataset:
    """Like ``_of_source``, for sources that are mixed by weight."""
    weights = [source.weight for source in sources]
    places = {shard: place for place, shard in enumerate(sorted(counts))}
    before = mixing.counts_before(position, weights)
    streams = []
    own_groups = groups or itertools.repeat(None, len(sources))
    for source, group, done in zip(sources, own_groups, before, strict=True):
        own = shard_order.part_of(counts, source.shards)
        numbers = tf.constant([places[shard] for shard in sorted(own)], tf.int64)
        buffer = max(1, shuffle_buffer * source.weight // sum(weights))
        stream = _of_source(own, group, done, buffer, 1, reader)
        streams.append(
            stream.map(
                lambda _, record, numbers=numbers: (record[0], tf.gather(numbers, record[1]))
            )
        )
    choice = tf.data.Dataset.range(position, 1 << 60)
    choice = choice.map(lambda place: mixing.source_of(place, weights))
    mixed = tf.data.Dataset.choose_from_datasets(streams, choice, stop_on_empty_dataset=True)
    return mixed.map(lambda *record: record).enumerate(position)


def evaluation_dataset(
    counts: Mapping[str, int],
    preprocessor: AlignPreprocessor,
    batch_size: int,
    augment_seed: int | None = None,
) -> tf.data.Dataset:
    """Every pair once, in the shards' order; centre-cropped, or augmented if a seed is given.

    The batches are like those of ``training_dataset``, with two other fields instead of ``lost``:
    ``positions``, the index of a pair among all records, and ``valid``, which is False for a pair
    that training would skip and for the padding of the last batch.
    """

    def crop(image: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        if augment_seed is None:
            return preprocessor.decode_centre_crop(image)
        seed = tf.constant(augment_seed, tf.int64)
        return preprocessor.decode_random_crop(image, tf.stack([seed, position]))

    blocks = tf.data.Dataset.from_tensor_slices(shard_order.every_block(counts))
    dataset = blocks.flat_map(block_reader(counts))
    total = sum(counts.values())
    num_batches = math.ceil(total / batch_size)
    padding = num_batches * batch_size - total
    blanks = tf.data.Dataset.from_tensors(("", tf.constant(0, tf.int64))).repeat(padding)
    dataset = dataset.concatenate(blanks).enumerate()
    dataset = _decoded(
        dataset,
        crop,
        preprocessor,
        batch_size,
    )

    @as_written
    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch.pop("lost")
        return _tokenize(batch, preprocessor)

    dataset = dataset.map(finish)
    # Keras warns at the end of a data set of unknown length.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return batches.with_options(dataset)


def _decoded(
    dataset: tf.data.Dataset,
    decode_crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    preprocessor: AlignPreprocessor,
    batch_size: int,
) -> tf.data.Dataset:
    """Batches of decoded pairs, from positions and the records of ``block_reader``.

    ``decode_crop`` takes an encoded image and its position.
    """
    no_image = tf.zeros([preprocessor.image_size, preprocessor.image_size, 3], tf.uint8)
    blank = {
        "positions": tf.constant(-1, tf.int64),
        PIXELS: no_image,
        "captions": "",
        "image_ids": tf.constant(0, tf.int64),
        "valid": False,
    }

    def decode(position: tf.Tensor, pair: Pair) -> dict[str, tf.Tensor]:
        image, caption, image_id = pair
        # Raises on a caption that is not UTF-8.
        caption = tf.strings.unicode_transcode(caption, "UTF-8", "UTF-8", errors="strict")
        # A caption without words would match every image.
        has_words = ~tf.strings.regex_full_match(caption, paper_rules.EMPTY_CAPTION)
        valid = (image != "") & has_words
        return {
            "positions": position,
            PIXELS: tf.cond(valid, lambda: decode_crop(image, position), lambda: no_image),
            "captions": caption,
            "image_ids": _fingerprint(image_id),
            "valid": valid,
        }

    dataset = dataset.map(lambda position, record: (position, (record[0], _mark(record[1]))))
    return batches.decoded(dataset, decode, blank, batch_size, read_pairs)


def _mark(shard: tf.Tensor) -> tf.Tensor:
    """The value of ``lost`` for a shard."""
    return tf.cast(shard + 1, tf.int32)


def read_pairs(records: tf.Tensor, _: tf.Tensor) -> tf.data.Dataset:
    """The pairs of records; malformed records give empty pairs."""
    at_once = tf.data.Dataset.from_tensors(records).map(parse_pairs).ignore_errors()

    @as_written
    def read_one(record: tf.Tensor) -> tf.data.Dataset:
        pair = tf.data.Dataset.from_tensors(record[None]).map(parse_pairs).ignore_errors()
        return pair.concatenate(tf.data.Dataset.from_tensors(_NO_PAIR)).take(1)

    # Read only if one of the records is malformed.
    one_by_one = tf.data.Dataset.from_tensor_slices(records).flat_map(read_one).unbatch()
    one_by_one = one_by_one.batch(records.shape[0])
    return at_once.concatenate(one_by_one).take(1).unbatch()


def _fingerprint(string: tf.Tensor) -> tf.Tensor:
    """A 62-bit hash above 0, or 0 for the empty string. Replicas can exchange only numbers."""
    number = tf.strings.to_hash_bucket_fast(string, (1 << 62) - 1) + 1
    return tf.where(string == "", tf.constant(0, tf.int64), number)


def _tokenize(batch: dict[str, tf.Tensor], preprocessor: AlignPreprocessor) -> dict[str, tf.Tensor]:
    tokens = preprocessor.tokenize(batch.pop("captions"))
    return {**batch, "caption_ids": _sequence_ids(tokens["token_ids"]), **tokens}


def _sequence_ids(token_ids: tf.Tensor) -> tf.Tensor:
    """A number above 0 for each row of word pieces; equal rows, and thus equal inputs, share it."""
    # Odd factors. The sum wraps around, so two different rows collide with probability 2 ** -62.
    factors = np.random.default_rng(0).integers(1 << 62, size=token_ids.shape[1]) * 2 + 1
    total = tf.reduce_sum(tf.cast(token_ids, tf.int64) * factors, axis=1)
    return tf.bitwise.bitwise_and(total, (1 << 62) - 1) + 1
