"""Recognises the kind of a file by its first bytes: is it damaged, or a valid file of another kind?

This module does not import TensorFlow, so commands can check tables before it loads.
"""

import codecs
import dataclasses

from align_keras import paths
from align_keras.errors import InputError, Place
from align_keras.paths import AnyPath

#: Number of bytes that ``kind_of`` needs from the start of a file.
HEAD_BYTES = 512


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """Used in messages after "is", such as ``a JPEG image``."""
    ending: str = ""
    """The file ending that readers of pairs expect; empty if no reader supports the kind."""
    remedy: str = ""
    """How to convert the file, whatever kind was expected."""


TFRECORD = Kind("TFRecord")
TAR = Kind("a tar archive", ".tar")
ZIP = Kind("a zip archive or an Excel table", remedy="unpack it, or save the table as CSV")
GZIP = Kind("compressed by gzip", remedy="gunzip it")
PARQUET = Kind("Parquet", ".parquet")
JSON_LINES = Kind("a table of JSON objects", ".jsonl")
JSON_ARRAY = Kind(
    "a JSON array", remedy="write one object per line, with the ending .jsonl (jq -c '.[]')"
)
TEXT = Kind("a table or other text", ".csv")
UTF_16 = Kind("text in UTF-16", remedy="convert it: iconv -f UTF-16 -t UTF-8")

_MARKS = (
    (0, b"\x1f\x8b", GZIP),
    (0, b"BZh", Kind("compressed by bzip2", remedy="bunzip2 it")),
    (0, b"\xfd7zXZ\0", Kind("compressed by xz", remedy="unxz it")),
    (0, b"\x28\xb5\x2f\xfd", Kind("compressed by zstd", remedy="unzstd it")),
    (0, b"PK\3\4", ZIP),
    (0, b"PK\5\6", ZIP),
    (0, b"PAR1", PARQUET),
    (0, b"ARROW1", Kind("Arrow's own format", remedy="write it as Parquet")),
    (0, b"\xd0\xcf\x11\xe0", Kind("an old Excel file", remedy="save the table as CSV")),
    (0, b"\x89HDF", Kind("HDF5")),
    (0, b"SQLite format 3", Kind("an SQLite database")),
    (0, b"\xff\xd8\xff", Kind("a JPEG image")),
    (0, b"\x89PNG", Kind("a PNG image")),
    (257, b"ustar", TAR),
    (0, b"version https://git-lfs", Kind("a Git LFS pointer", remedy="git lfs pull")),
    (0, codecs.BOM_UTF16_LE, UTF_16),
    (0, codecs.BOM_UTF16_BE, UTF_16),
)


def head_of(path: str | AnyPath) -> bytes:
    """The first bytes of a file."""
    with paths.path_of(path).open("rb") as file:
        return file.read(HEAD_BYTES)


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file, given its first ``HEAD_BYTES``; None if the kind is unknown."""
    for place, mark, kind in _MARKS:
        if head[place : place + len(mark)] == mark:
            return kind
    # TFRecord: the first 8 bytes are the length of a record, above 0 and below 2 GiB.
    if len(head) >= 12 and head[4:8] == bytes(4) and head[3] < 0x80 and any(head[:4]):
        return TFRECORD
    if len(head) > 8 and head.isascii() and not any(head[1:40:2]) and all(head[:40:2]):
        return UTF_16
    text = _text_of(head).lstrip("\ufeff \t\r\n")
    first, line_end, _ = text.partition("\n")
    is_table = line_end and any(mark in first for mark in ",;\t|")
    starts = {"<": Kind("HTML or XML"), "{": JSON_LINES, "[": JSON_ARRAY}
    return starts.get(text[:1], TEXT if is_table else None)


def _text_of(head: bytes) -> str:
    """The bytes as text; empty if they are not text."""
    try:
        # The last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return ""
    return text if all(letter.isprintable() or letter in "\ufeff\t\r\n" for letter in text) else ""


def check_shard(shard: str, head: bytes, wanted: Kind = TFRECORD) -> None:
    """Raises InputError if an unreadable shard is a valid file of another kind.

    Args:
        shard: path of the shard.
        head: the first ``HEAD_BYTES`` of the file, not decompressed.
        wanted: the expected kind.
    """
    kind = kind_of(head)
    is_packed = wanted is TFRECORD and shard.endswith(".gz")
    if kind is not None and kind is not (GZIP if is_packed else wanted):
        remedy = kind.remedy
        if kind.ending:
            remedy = "pack it with recipes/prepare_data.py"
            if not shard.lower().endswith(kind.ending):
                remedy = f"give it the ending {kind.ending}, and {remedy} to train on it"
        raise InputError(f"is {kind.name}, not {wanted.name}", Place(shard), remedy)


def check_table(path: str | AnyPath, head: bytes, ending: str) -> None:
    """Raises InputError if the content of a file does not match its ending.

    Args:
        path: path of the table.
        head: the first ``HEAD_BYTES`` of the file, decompressed.
        ending: ending of the file, such as ``.csv``.
    """
    kind = kind_of(head)
    texts = {".csv": (TEXT,), ".tsv": (TEXT,), ".jsonl": (TEXT, JSON_LINES)}
    if kind is None or kind.ending == ending or kind in texts.get(ending, ()):
        return
    problem = f"is {kind.name}, despite its ending {ending}"
    raise InputError(problem, Place(str(path)), remedy_of(kind))


def remedy_of(kind: Kind | None) -> str:
    """How to convert a file of this kind to a table; empty if unknown."""
    if kind is None:
        return ""
    return kind.remedy or (f"give it the ending {kind.ending}" if kind.ending else "")
