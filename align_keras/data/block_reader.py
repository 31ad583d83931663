"""Reads blocks of records with TensorFlow ops: no Python runs while a data set is read.

Every host therefore reads its own part on all of its cores, even if the training program runs on
another machine, as with TPU slices. TensorFlow's reader stops at the first corrupt record of a
file. This one then reads the later records of the block one by one, so that a corrupt record does
not lose the others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from align_keras import paths
from align_keras.data.framing import RECORD_OVERHEAD
from align_keras.data.shard_order import Block, ReadBlock, ShardCounts
from align_keras.preprocessing.tracing import as_written

_BUFFER_BYTES = 256 << 10
# Larger, since each request to another machine takes long.
_REMOTE_BUFFER_BYTES = 4 << 20
_HEADER_BYTES = 12
_NONE = -1


def block_reader(counts: Mapping[str, int]) -> ReadBlock:
    """A function that reads the records of a block, each with the number of its shard.

    A corrupt or missing record is ``b""``. The records after it are also ``b""`` if the shard is
    compressed, or if ``counts`` is not a ``ShardCounts`` and thus has no file sizes.

    Args:
        counts: the number of records of each shard, by path. A shard's number is its index among
            the sorted paths.
    """
    shards = sorted(counts)
    sizes = [counts.sizes[shard] if isinstance(counts, ShardCounts) else 0 for shard in shards]
    is_compressed = [shard.endswith(".gz") for shard in shards]
    file_sizes = np.where(is_compressed, 0, sizes)
    kinds = np.where(is_compressed, "GZIP", "")
    buffers = [_REMOTE_BUFFER_BYTES if paths.scheme(shard) else _BUFFER_BYTES for shard in shards]

    @as_written
    def read_block(block: Block) -> tf.data.Dataset:
        path, size = tf.gather(shards, block.shard), tf.gather(file_sizes, block.shard)
        kind, buffer = tf.gather(kinds, block.shard), tf.gather(buffers, block.shard)

        @as_written
        def read_from(start: tf.Tensor, buffer_bytes: tf.Tensor) -> tf.data.Dataset:
            # `tf.data.TFRecordDataset` has no argument for the start.
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=[path],
                compression_type=kind,
                buffer_size=tf.cast(buffer_bytes, tf.int64),
                byte_offsets=[start],
            )
            # An error here ends the block. An error on opening the file would repeat forever, since
            # `ignore_errors` asks the reader again.
            with tf.control_dependencies([_first_byte(path)]):
                variant = tf.identity(variant)
            return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))

        def records_from(start: tf.Tensor, buffer_bytes: Any = buffer) -> tf.data.Dataset:
            # In a function: `reduce` copies the data set, which TensorFlow cannot do for this op.
            place = tf.data.Dataset.from_tensors((start, buffer_bytes))
            return place.flat_map(read_from).ignore_errors()

        sound = records_from(block.start).take(block.whole).skip(block.skip)
        # Read only if there are too few intact records.
        rest = tf.data.Dataset.from_tensors(block).flat_map(
            as_written(lambda block: _behind_a_corrupt_record(block, path, size, records_from))
        )
        missing = tf.data.Dataset.from_tensors("").repeat(block.count)
        found = sound.concatenate(rest).concatenate(missing).take(block.count)
        return found.map(lambda record: (record, block.shard))

    return read_block


def _behind_a_corrupt_record(block, path, file_size, records_from):
    """The records of a block from its first corrupt one onwards; corrupt ones are ``b""``."""

    def count(found, record):
        number, place = found
        return number + 1, place + RECORD_OVERHEAD + _length(record)

    start = (tf.constant(0, tf.int64), block.start)
    number, place = records_from(block.start).take(block.whole).reduce(start, as_written(count))

    @as_written
    def read_next(place, _):
        header = _bytes_at(path, file_size, place, tf.constant(_HEADER_BYTES, tf.int64))
        length = _length_in(header)
        # Not `following <= file_size`: the sum may overflow 64 bits.
        is_inside = (length >= 0) & (length <= file_size - place - RECORD_OVERHEAD)
        following = place + RECORD_OVERHEAD + length
        one = (
            records_from(place, _BUFFER_BYTES)
            .take(1)
            .concatenate(tf.data.Dataset.from_tensors(""))
            .take(1)
        )
        record = tf.cond(is_inside, one.get_single_element, lambda: "")
        return tf.where(is_inside, following, _NONE), record

    remaining = tf.data.Dataset.range(number, block.skip + block.count)
    return remaining.scan(place, read_next).skip(tf.maximum(block.skip - number, 0))


def _length(string: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(string), tf.int64)


def _bytes_at(path, file_size, place, length):
    """Bytes of a file; fewer or none if the range is not in the file or cannot be read."""
    behind = file_size - place - length
    is_inside = (place >= 0) & (behind >= 0)

    @as_written
    def read(place: tf.Tensor) -> tf.Tensor:
        octets = tf.data.FixedLengthRecordDataset([path], length, place, behind)
        return octets.take(1).get_single_element()

    found = tf.data.Dataset.from_tensors(place).map(read).ignore_errors()
    found = found.concatenate(tf.data.Dataset.from_tensors("")).take(1)
    return tf.cond(is_inside, found.get_single_element, lambda: "")


def _first_byte(path: tf.Tensor) -> tf.Tensor:
    """The first byte of a file; fails if the file is empty or cannot be opened."""
    octets = tf.data.FixedLengthRecordDataset([path], record_bytes=1, buffer_size=1)
    return octets.take(1).get_single_element()


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _length_in(header: tf.Tensor) -> tf.Tensor:
    """The length in a record's header, int64; negative if the header is truncated or corrupt."""
    is_whole = _length(header) == _HEADER_BYTES
    octets = tf.io.decode_raw(tf.where(is_whole, header, "\0" * _HEADER_BYTES), tf.uint8)
    octets = tf.ensure_shape(octets, [_HEADER_BYTES])
    checksum = tf.bitcast(octets[8:], tf.uint32)
    is_sound = is_whole & (checksum == _masked_crc(octets[:8]))
    return tf.where(is_sound, tf.bitcast(octets[:8], tf.int64), _NONE)


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def _masked_crc(octets: tf.Tensor) -> tf.Tensor:
    """The masked CRC-32C of a few bytes, as TFRecord files store it: uint32."""
    table = tf.constant(_crc_table())
    crc = tf.constant(0xFFFFFFFF, tf.uint32)
    for octet in tf.unstack(tf.cast(octets, tf.uint32)):
        place = tf.bitwise.bitwise_and(tf.bitwise.bitwise_xor(crc, octet), 0xFF)
        crc = tf.bitwise.bitwise_xor(
            tf.gather(table, tf.cast(place, tf.int32)), tf.bitwise.right_shift(crc, 8)
        )
    crc = tf.bitwise.invert(crc)
    turned = tf.bitwise.bitwise_or(tf.bitwise.right_shift(crc, 15), tf.bitwise.left_shift(crc, 17))
    return turned + tf.constant(0xA282EAD8, tf.uint32)
