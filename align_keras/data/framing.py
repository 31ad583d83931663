"""The frames of TFRecord files: a length, its checksum, a record, its checksum.

TensorFlow's own reader stops at the first flipped byte. The length of a record has its own
checksum, so this reader loses only the corrupt record. If the length itself is corrupt or the file
ends early, the rest of the file is lost.
"""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from align_keras import lazy, paths
from align_keras.remote_files import tensorflow_errors

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = lazy.Module("tensorflow")

#: Records between two successive places that ``walk`` finds.
BLOCK = 128
#: Bytes that a file needs for a record in addition to its data: a length and two checksums.
RECORD_OVERHEAD = 16

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
# A larger length means a broken header: protocol buffers are limited to 2 GiB.
_MAX_RECORD_BYTES = 1 << 31


def ends_early() -> tuple[type[Exception], ...]:
    """Errors raised if a file cannot be opened, ends early or cannot be decompressed."""
    return (EOFError, OSError, zlib.error, *tensorflow_errors())


class ShardIndex(NamedTuple):
    """Facts about a shard: the number, places and digest of its records."""

    records: int
    """Number of records, including a truncated last one."""
    starts: list[int]
    """Byte offset of every 128th record; empty if the shard was not read."""
    digest: str = ""
    """Digest of the lengths and checksums of all records; empty if the shard was not read."""
    whole: int | None = None
    """Number of complete records, without a truncated last one; None if unknown."""


def read(shard: str, start: int = 0) -> Iterator[bytes | None]:
    """Yields the records of a shard one by one, and ``None`` for each corrupt record.

    Args:
        shard: path of the shard; a name that ends in ``.gz`` is read as compressed.
        start: byte offset of a record at which to start; only for uncompressed shards.

    Raises:
        One of ``ends_early()`` where the rest of the file is lost.
    """
    with _open(shard) as file:
        if start:
            file.seek(start)
        while header := file.read(_HEADER.size):
            length = _length_in(header)
            if length is None or length > _MAX_RECORD_BYTES:
                raise EOFError
            data = file.read(length)
            checksum = file.read(_CHECKSUM.size)
            if len(checksum) < _CHECKSUM.size:
                raise EOFError
            yield data if _masked_crc(data) == _CHECKSUM.unpack(checksum)[0] else None


def count(shard: str) -> tuple[ShardIndex, bool]:
    """Counts records by reading all of them; also returns whether the last one is truncated."""
    number = 0
    try:
        for _ in read(shard):
            number += 1
    except ends_early():
        return ShardIndex(number + 1, [], whole=number), True
    return ShardIndex(number, [], whole=number), False


def walk(shard: str) -> tuple[ShardIndex, bool]:
    """Like ``count``, but reads only the headers, and fills in all fields of ``ShardIndex``."""
    number = position = 0
    starts, seen = [], hashlib.blake2b(digest_size=16)
    size, is_sound = paths.path_of(shard).stat().st_size, True
    with _open_to_skip(shard) as file:
        while position < size and is_sound:
            if number % BLOCK == 0:
                starts.append(position)
            # The checksum of the previous record is directly before this header.
            before = _CHECKSUM.size if number else 0
            file.seek(position - before)
            seen.update(found := file.read(before + _HEADER.size))
            number += 1
            length = _length_in(found[before:])
            is_sound = length is not None
            position += _HEADER.size + (length or 0) + _CHECKSUM.size
        file.seek(max(0, size - _CHECKSUM.size))
        seen.update(file.read(_CHECKSUM.size))
    is_cut = not is_sound or position > size
    return ShardIndex(number, starts, seen.hexdigest(), number - is_cut), is_cut


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _length_in(header: bytes) -> int | None:
    """The length that a header states; None if the header is truncated or corrupt."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return length if _masked_crc(header[:8]) == checksum else None


def _open(shard: str) -> Any:
    is_compressed = shard.endswith(".gz")
    if paths.scheme(shard):
        raw = tf.io.gfile.GFile(shard, "rb")
        return gzip.GzipFile(fileobj=raw) if is_compressed else raw
    # Python's own file objects read a record in less than half the time.
    return gzip.open(shard) if is_compressed else open(shard, "rb")


def _open_to_skip(shard: str) -> Any:
    # Unbuffered: a buffer would also read the bytes to be skipped.
    return _open(shard) if paths.scheme(shard) else open(shard, "rb", buffering=0)
