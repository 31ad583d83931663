"""The frames of TFRecord files: a length, its checksum, a record, its checksum.

TensorFlow's own reader stops for good at the first flipped byte. A record's length has its own
checksum, so here a corrupt record costs that record; where the length itself is corrupt or the file
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

#: Records between two of the places that ``walk`` finds.
BLOCK = 128
#: Bytes of a record in a file beside its own: its length, and two checksums.
RECORD_OVERHEAD = 16

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
# A longer record is a broken header: protocol buffers end at 2 GiB.
_MAX_RECORD_BYTES = 1 << 31


def ends_early() -> tuple[type[Exception], ...]:
    """Errors if a file cannot be opened, ends early or cannot be decompressed."""
    return (EOFError, OSError, zlib.error, *tensorflow_errors())


class ShardIndex(NamedTuple):
    """Facts about a shard: number, places and digest of its records."""

    records: int
    """The number of records, a cut-off one included."""
    starts: list[int]
    """The bytes where every 128th record begins; empty if the shard was not read."""
    digest: str = ""
    """Digest of the lengths and checksums of all records; empty if the shard was not read."""
    whole: int | None = None
    """Number of complete records, without one in which the file ends; None if unknown."""


def read(shard: str, start: int = 0) -> Iterator[bytes | None]:
    """Reads a shard's records one by one; ``None`` stands for each that is corrupt.

    Args:
        shard: its path; a name that ends in ``.gz`` is compressed.
        start: the byte where a record begins, of a shard that is not compressed.

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
    """Counts the records by reading all; says also whether the shard ends early in the last."""
    number = 0
    try:
        for _ in read(shard):
            number += 1
    except ends_early():
        return ShardIndex(number + 1, [], whole=number), True
    return ShardIndex(number, [], whole=number), False


def walk(shard: str) -> tuple[ShardIndex, bool]:
    """Like ``count``, from the headers alone, with all that ``ShardIndex`` has."""
    number = position = 0
    starts, seen = [], hashlib.blake2b(digest_size=16)
    size, is_sound = paths.path_of(shard).stat().st_size, True
    with _open_to_skip(shard) as file:
        while position < size and is_sound:
            if number % BLOCK == 0:
                starts.append(position)
            # The checksum of the record before stands right in front.
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
    """The length that a header states; None if it is cut off or corrupt."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return length if _masked_crc(header[:8]) == checksum else None


def _open(shard: str) -> Any:
    is_compressed = shard.endswith(".gz")
    if paths.scheme(shard):
        raw = tf.io.gfile.GFile(shard, "rb")
        return gzip.GzipFile(fileobj=raw) if is_compressed else raw
    # Python's own files read a record in less than half the time.
    return gzip.open(shard) if is_compressed else open(shard, "rb")


def _open_to_skip(shard: str) -> Any:
    # Unbuffered: a buffer would read what is skipped.
    return _open(shard) if paths.scheme(shard) else open(shard, "rb", buffering=0)
