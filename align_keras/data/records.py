"""TFRecord shards of image-text pairs, in the layout that img2dataset writes.

A record is a ``tf.train.Example`` of one pair: ``jpg`` (the encoded image), ``txt`` (the
caption, UTF-8) and ``key`` (a name of the pair). Optional fields used where they are there:
``image_id`` (pairs of the same image share it), ``class_name`` and ``unseen_class``
(zero-shot evaluation). All others are ignored. Shards may be gzip-compressed (``.gz``).

Beside ``NAME.tfrecord`` stands ``NAME_stats.json`` with the number of its records
(``successes``), as img2dataset writes it; where it is missing the records are counted by a
walk over their headers, and of a compressed shard by reading it.

Here shards are found, read and counted; ``shard_writer`` writes them.
"""

import gzip
import json
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import tensorflow as tf

from align_keras import paths
from align_keras.data import file_kinds
from align_keras.data.matching import matching_files
from align_keras.errors import InputError, MissingInputError, Place

logger = logging.getLogger(__name__)

#: ``index_records`` finds where every so many-th record begins.
BLOCK = 128

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
# A longer record is a broken header: protocol buffers end at 2 GiB.
_MAX_RECORD_BYTES = 1 << 31
_ENDS_EARLY = (EOFError, gzip.BadGzipFile, zlib.error, tf.errors.OpError)


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def find_shards(pattern: str | Path) -> list[str]:
    """Lists the files of a glob pattern, or of several joined by commas, sorted.

    Raises:
        MissingInputError: if a pattern matches nothing.
        InputError: as ``matching_files``.
    """
    text, shards = str(pattern), []
    parts = [text] if os.path.isfile(text) else text.split(",")
    while parts:
        # A name may have commas too: where a part matches nothing, it ends at a later one.
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


def _open(shard: str) -> Any:
    raw = tf.io.gfile.GFile(shard, "rb")
    return gzip.GzipFile(fileobj=raw) if shard.endswith(".gz") else raw


def check_kind(shard: str) -> None:
    """Raises InputError if a shard without a readable record is a sound file of another kind."""
    with tf.io.gfile.GFile(shard, "rb") as file:
        head = file.read(file_kinds.HEAD_BYTES)
    file_kinds.check_shard(shard, head)


def read_frames(shard: str, start: int = 0) -> Iterator[bytes | None]:
    """Reads a shard's records one by one; ``None`` stands for each that is corrupt.

    TensorFlow's own reader stops for good at the first flipped byte. A record's length has
    its own checksum, so here a corrupt record costs that record; where the length itself is
    corrupt or the file ends early, the rest of the file is lost.

    ``start`` is the byte where a record begins, of a shard that is not compressed.
    """
    try:
        yield from _read_to_the_fault(shard, start)
    except _ENDS_EARLY:
        yield None


def _read_to_the_fault(shard: str, start: int = 0) -> Iterator[bytes | None]:
    """As ``read_frames``; raises one of ``_ENDS_EARLY`` where the rest of the file is lost."""
    with _open(shard) as file:
        if start:
            file.seek(start)
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise EOFError
            length, length_crc = _HEADER.unpack(header)
            if _masked_crc(header[:8]) != length_crc or length > _MAX_RECORD_BYTES:
                raise EOFError
            data = file.read(length)
            checksum = file.read(_CHECKSUM.size)
            if len(checksum) < _CHECKSUM.size:
                raise EOFError
            yield data if _masked_crc(data) == _CHECKSUM.unpack(checksum)[0] else None


def stats_path(shard: str) -> str:
    """Where the statistics of a shard stand: ``00000.tfrecord.gz`` -> ``00000_stats.json``."""
    return re.sub(r"(\.tfrecords?)?(\.gz)?$", "", shard) + "_stats.json"


def count_records(shard: str) -> int:
    """The number of a shard's records, as ``index_records`` finds it."""
    return index_records(shard)[0]


def index_records(shard: str) -> tuple[int, list[int]]:
    """Counts a shard's records, a cut-off one included, and finds where every 128th begins.

    The places are the bytes where every 128th record begins; none of a shard that is not walked
    through.

    Of an uncompressed local file from its headers and its statistics, the larger of the two; of
    another from its statistics, or by reading it where it has none. Says in a line of the log
    where a file ends early: what its statistics state beyond counts as corrupt, and without
    them what is lost is unknown.
    """
    if (alone := stated_alone(shard)) is not None:
        return alone, []
    stated = _stated_count(shard)
    starts: list[int] = []
    if shard.endswith(".gz"):
        count, ends_early = _count_frames(shard)
    else:
        count, ends_early = _count_headers(shard, starts)
    if ends_early:
        lost = "what followed is lost" if stated is None else f"{stated:,} records were written"
        logger.warning(
            "%s: ends early, in record %d: a cut file or a broken header; %s; write it again",
            shard,
            count - 1,
            lost,
        )
    return max(count, stated or 0), starts


def stated_alone(shard: str) -> int | None:
    """The number in a shard's statistics where ``count_records`` goes by it alone; else None.

    That is where counting takes more than a walk over the headers of a local file.
    """
    return _stated_count(shard) if shard.endswith(".gz") or paths.scheme(shard) else None


def _stated_count(shard: str) -> int | None:
    if tf.io.gfile.exists(stats_path(shard)):
        with tf.io.gfile.GFile(stats_path(shard)) as file:
            try:
                return int(json.loads(file.read())["successes"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    "no whole number 'successes' in it",
                    Place(stats_path(shard)),
                    "mend or delete it",
                ) from None
    return None


def _count_frames(shard: str) -> tuple[int, bool]:
    """The number of records of a whole read, and whether the shard ends early in the last."""
    count = 0
    try:
        for _ in _read_to_the_fault(shard):
            count += 1
    except _ENDS_EARLY:
        return count + 1, True
    return count, False


def _count_headers(shard: str, starts: list[int]) -> tuple[int, bool]:
    """As ``_count_frames``, by a walk over the headers, which fills ``starts``."""
    size = tf.io.gfile.stat(shard).length
    count = position = 0
    with _open(shard) as file:
        while position < size:
            if count % BLOCK == 0:
                starts.append(position)
            file.seek(position)
            header = file.read(_HEADER.size)
            count += 1
            if len(header) < _HEADER.size or _masked_crc(header[:8]) != _HEADER.unpack(header)[1]:
                return count, True
            position += _HEADER.size + _HEADER.unpack(header)[0] + _CHECKSUM.size
    return count, position > size


def read_records(shard: str, count: int, start: int = 0, skip: int = 0) -> Iterator[bytes]:
    """Reads exactly ``count`` records, with ``b""`` for each that is corrupt or missing.

    A shard so yields the same number in every epoch and every run, whatever its state: the
    place in the data after N steps follows from N alone.

    They begin ``skip`` records after the byte ``start``, which is one as of ``read_frames``.
    """
    frames = read_frames(shard, start)
    for _ in range(skip):
        next(frames, None)
    for _ in range(count):
        yield next(frames, None) or b""


def parse_pair(record: bytes) -> dict[str, Any]:
    """The fields of a serialised record: a dict of bytes and ints, absent ones left out.

    Raises:
        ValueError: if it is no ``tf.train.Example``.
    """
    try:
        example = tf.train.Example.FromString(record)
    except Exception as error:  # protobuf's own DecodeError, wherever the version keeps it
        raise ValueError("not a tf.train.Example") from error
    fields = {}
    for name, feature in example.features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        if len(values):
            fields[name] = values[0]
    return fields


def image_id_of(record: bytes) -> bytes:
    """The ``image_id`` of a serialised record as bytes, whether string or whole number.

    ``b""`` if it is absent, white space, a fraction or unreadable: as ``examples.example.as_id``.
    """
    try:
        feature = tf.train.Example.FromString(record).features.feature["image_id"]
    except Exception:  # as in parse_pair, which copies the image as well
        return b""
    for value in feature.bytes_list.value[:1]:
        return value if value.decode("utf-8", "replace").strip() else b""
    for value in feature.int64_list.value[:1]:
        return b"%d" % value
    for value in feature.float_list.value[:1]:
        return b"%d" % value if value.is_integer() and abs(value) < 1 << 24 else b""
    return b""


def read_captions(shards: Iterable[str], limit: int) -> Iterator[str]:
    """Yields up to ``limit`` captions, in the shards' order; unreadable ones are left out."""
    for shard in shards:
        for record in read_frames(shard):
            if limit <= 0:
                return
            if record is None:
                continue
            try:
                yield parse_pair(record)["txt"].decode("utf-8")
            except (ValueError, KeyError):
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
    # Else the order of the fields, and so a shard's bytes, change from process to process.
    return example.SerializeToString(deterministic=True)
