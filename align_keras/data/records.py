"""TFRecord shards of image-text pairs, in the layout that img2dataset writes.

A record is a ``tf.train.Example`` of one pair: ``jpg`` (the encoded image), ``txt`` (the caption,
UTF-8) and ``key`` (a name of the pair). Optional fields are ``image_id``, which pairs of the same
image share, and ``class_name`` and ``unseen_class`` for zero-shot evaluation. All other fields are
ignored. Shards may be gzip-compressed (``.gz``).

The file ``NAME_stats.json`` next to ``NAME.tfrecord`` holds the number of its records
(``successes``), as img2dataset writes it. Without that file, records are counted by their headers,
and those of a compressed shard by reading it.

This module finds, reads and counts shards in Python. ``block_reader`` reads the shards for training
and embedding, and ``shard_writer`` writes shards. No record reaches TensorFlow's own parser, which
ends the process on some bytes that are not a ``tf.train.Example``.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_keras import lazy, paths
from align_keras.data import file_kinds, framing
from align_keras.data.matching import matching_files
from align_keras.data.shard_names import NO_EXAMPLE, stats_path
from align_keras.errors import InputError, MissingInputError, Place

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy.Module("tensorflow")

logger = logging.getLogger(__name__)


def find_shards(pattern: str | Path) -> list[str]:
    """The sorted files of a glob pattern, or of several patterns joined by commas.

    Raises:
        MissingInputError: if a pattern matches nothing.
        InputError: as in ``matching_files``.
    """
    text, shards = str(pattern), []
    parts = [text] if os.path.isfile(text) else text.split(",")
    while parts:
        # A name may contain commas too. If a part matches nothing, it is extended to a later comma.
        tries = range(1, len(parts) + 1)
        found = ((end, matching_files(",".join(parts[:end]))) for end in tries)
        end, matches = next((own for own in found if own[1]), (0, []))
        if not matches:
            raise MissingInputError(
                f"no file matches {parts[0]!r}",
                remedy="give a quoted pattern such as 'DIR/train-*.tfrecord'",
            )
        shards.extend(matches)
        parts = parts[end:]
    return sorted(set(shards))


def check_kind(shard: str) -> None:
    """Raises InputError if a shard without readable records is a file of another kind."""
    with paths.path_of(shard).open("rb") as file:
        head = file.read(file_kinds.HEAD_BYTES)
    file_kinds.check_shard(shard, head)


def read_frames(shard: str, start: int = 0) -> Iterator[bytes | None]:
    """Yields a shard's records one by one, and ``None`` for each corrupt record.

    If the rest of the file is lost, one ``None`` stands for all its records: see ``framing``.
    ``start`` is the byte offset of a record; it must be 0 for a compressed shard.
    """
    try:
        yield from framing.read(shard, start)
    except framing.ends_early():
        yield None


def count_records(shard: str) -> int:
    """The number of records in a shard, according to ``index_records``."""
    return index_records(shard).records


def index_records(shard: str) -> framing.ShardIndex:
    """Counts a shard's records, and finds the byte offset of every 128th record.

    For an uncompressed local file, the count is the larger of those from the headers and the
    statistics. For other files, it comes from the statistics, or from reading the file if there are
    none. If a file ends early, the log states it. Records that the statistics state beyond the end
    then count as corrupt; without statistics, the number of lost records is unknown.
    """
    if (alone := stated_alone(shard)) is not None:
        return framing.ShardIndex(alone, [])
    stated = _stated_count(shard)
    index, ends_early = (framing.count if shard.endswith(".gz") else framing.walk)(shard)
    if ends_early:
        lost = "the rest is lost" if stated is None else f"{stated:,} records were written"
        logger.warning(
            "%s: ends early, in record %d (truncated file or damaged header); %s; write it again",
            shard,
            index.records - 1,
            lost,
        )
    count = max(index.records, stated or 0)
    return framing.ShardIndex(count, index.starts, index.digest, index.whole)


def stated_alone(shard: str) -> int | None:
    """The number in a shard's statistics if ``count_records`` relies on it alone; else None.

    This is the case if counting takes more than reading the headers of a local file.
    """
    return _stated_count(shard) if shard.endswith(".gz") or paths.scheme(shard) else None


def _stated_count(shard: str) -> int | None:
    path = paths.path_of(stats_path(shard))
    if path.exists():
        with path.open() as file:
            try:
                return int(json.loads(file.read())["successes"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    "no integer 'successes' in it",
                    Place(stats_path(shard)),
                    "correct or delete it",
                ) from None
    return None


def read_records(shard: str, count: int, start: int = 0, skip: int = 0) -> Iterator[bytes]:
    """Yields exactly ``count`` records; each corrupt or missing one is ``b""``.

    A shard therefore yields the same number of records in every epoch and run, whatever its state.
    The place in the data after N steps depends on N alone.

    The first record is the one ``skip`` records after the byte offset ``start`` (as in
    ``read_frames``).
    """
    frames = read_frames(shard, start)
    for _ in range(skip):
        next(frames, None)
    for _ in range(count):
        yield next(frames, None) or b""


def parse_example(record: bytes) -> "tf.train.Example":
    """A serialised record, parsed by protobuf; ValueError if it is not a ``tf.train.Example``."""
    try:
        return tf.train.Example.FromString(record)
    except Exception as error:  # protobuf's DecodeError, whose module depends on the version
        raise ValueError(NO_EXAMPLE) from error


def parse_pair(record: bytes) -> dict[str, Any]:
    """The fields of a serialised record as a dict of bytes and numbers, without absent ones.

    Raises:
        ValueError: if the record is not a ``tf.train.Example``.
    """
    fields = {}
    for name, feature in parse_example(record).features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        if len(values):
            fields[name] = values[0]
    return fields


def read_captions(shards: Iterable[str], limit: int) -> Iterator[str]:
    """Yields up to ``limit`` captions, in the order of the shards; skips unreadable ones."""
    for shard in shards:
        for record in read_frames(shard):
            if limit <= 0:
                return
            if record is None:
                continue
            try:
                yield parse_pair(record)["txt"].decode("utf-8")
            except (ValueError, KeyError, AttributeError):  # a number has no `decode`
                continue
            limit -= 1


def make_record(jpg: bytes, txt: str | bytes, key: str, **fields: Any) -> bytes:
    """Serialises one pair.

    Args:
        jpg: the encoded image.
        txt: the caption.
        key: a name of the pair.
        **fields: further fields; strings, bytes, ints or floats.
    """
    features = {}
    for name, value in {"jpg": jpg, "txt": txt, "key": key, **fields}.items():
        if isinstance(value, str):
            value = value.encode("utf-8")
        if isinstance(value, bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, int):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        features[name] = feature
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Otherwise the order of the fields, and thus the bytes of a shard, would differ between
    # processes.
    return example.SerializeToString(deterministic=True)
