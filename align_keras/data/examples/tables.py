"""Rows of tables: JSONL, CSV, TSV and Parquet.

This module does not import TensorFlow, so commands can check tables before it loads.
"""

import contextlib
import csv
import dataclasses
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from align_keras import files, paths
from align_keras.data import file_kinds
from align_keras.errors import InputError, MissingInputError, Place
from align_keras.paths import AnyPath

#: Endings of tables, in lower case; all but Parquet may be followed by ``.gz``.
TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
#: The place of a Parquet table's row is this prefix and the row number, from 1.
PARQUET_ROW = "row "
# A TSV field: either quoted up to the next tab, with inner quotes doubled, or plain.
_TSV_FIELD = re.compile(r'(?:^|\t)("(?:[^"]|"")*"(?=\t|$)|[^\t]*)')
_QUOTED = re.compile(r'"[^"]*"')
# Spreadsheets write semicolons where a comma is the decimal point.
_SEPARATORS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class RowFault:
    """A row that cannot be read."""

    reason: str


Row: TypeAlias = dict[str, Any] | RowFault

NO_OBJECT = RowFault("not a JSON object")
MORE_FIELDS = RowFault("more fields than the header; quote fields that contain the separator")
FEWER_FIELDS = RowFault("fewer fields than the header; quote fields that contain a line break")
LINE_BREAK = RowFault("a line break within quotes, which TSV does not allow")


def ending_of(path: str | AnyPath) -> str:
    """One of ``TABLE_SUFFIXES``, ignoring ``.gz``; empty if the name is not that of a table."""
    name = Path(str(path)).name.lower()
    plain = name.removesuffix(".gz")
    ending = Path(plain).suffix
    is_table = ending in TABLE_SUFFIXES and (plain == name or ending != ".parquet")
    return ending if is_table else ""


def read_table(path: str | AnyPath) -> Iterator[tuple[str, Row]]:
    """Reads rows from JSONL, CSV, TSV or Parquet, chosen by the file extension.

    A CSV whose header has no comma may be separated by semicolons, tabs or bars. A TSV holds one
    row per line. Quotes in a TSV are ordinary characters, unless two of them enclose a field whose
    inner quotes are doubled, as pandas writes it.

    Args:
        path: the table, plain or compressed by gzip; Parquet only plain.

    Yields:
        ``(where, row)``: the place in the file, such as ``line 3``, and a dict. The row is a
        ``RowFault`` if the line is not a JSON object or its number of fields differs from the
        header.

    Raises:
        MissingInputError: if the file does not exist.
        InputError: if the extension is unknown; if the file has another format, is not UTF-8 or
            cannot be read; if two columns share a name; if a quote in a CSV is not closed; or if
            pyarrow is missing for Parquet.
    """
    ending = _check_kind(path)
    if ending == ".parquet":
        yield from _read_parquet(path)
        return
    with _read_as_text(path) as file:
        yield from _read_jsonl(file) if ending == ".jsonl" else _read_lines(file, path, ending)


def header_of(path: str | AnyPath) -> list[str] | None:
    """The names of a table's columns, without reading its rows; None for JSONL.

    Raises:
        InputError: as in ``read_table``.
    """
    ending = _check_kind(path)
    if ending == ".jsonl":
        return None
    if ending == ".parquet":
        with opened_parquet(path) as file:
            return file.schema_arrow.names
    with _read_as_text(path) as file:
        return _header(_LINES[ending](file, path), path)


def _check_kind(path: str | AnyPath) -> str:
    """The ending of a table, after checks that the file exists and has the format of its ending."""
    if not paths.path_of(path).is_file():
        raise MissingInputError(f"no file {path}", remedy="give a JSONL, CSV, TSV or Parquet table")
    ending = ending_of(path)
    if not ending:
        problem = f"{path} must end in .jsonl, .csv, .tsv or .parquet"
        kind = file_kinds.kind_of(file_kinds.head_of(path))
        raise InputError(problem, remedy=file_kinds.remedy_of(kind))
    if ending == ".parquet":
        head = file_kinds.head_of(path)
    else:
        with _open(path, "rb") as file:
            try:
                head = file.read(file_kinds.HEAD_BYTES)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                head = b""  # the reader reports this error
    file_kinds.check_table(path, head, ending)
    return ending


def _open(path: str | AnyPath, mode: str = "rt") -> contextlib.AbstractContextManager[IO]:
    options = {} if mode == "rb" else {"encoding": "utf-8-sig", "newline": ""}
    return files.opened(paths.path_of(path), mode, **options)


@contextlib.contextmanager
def _read_as_text(path: str | AnyPath) -> Iterator[IO[str]]:
    """The opened table; raises InputError if it cannot be read."""
    try:
        with _open(path) as file:
            yield file
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"not readable ({error})", Place(str(path)), "write it again") from None


def _not_utf8(path: str | AnyPath) -> InputError:
    """The error that names the first line that is not UTF-8."""
    number, found = 0, ""
    with _open(path, "rb") as file:
        for number, line in enumerate(file, 1):  # noqa: B007
            try:
                line.decode()
            except UnicodeDecodeError as error:
                found = f" (byte 0x{line[error.start]:02x})"
                break
    return InputError(
        f"not UTF-8{found}",
        Place(str(path), f"line {number}"),
        "convert the table, for example with iconv -f LATIN1 -t UTF-8",
    )


# === JSONL ===


def _read_jsonl(file: IO[str]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f"line {number}", _parse_object(line)


def _parse_object(line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return NO_OBJECT
    return row if isinstance(row, dict) else NO_OBJECT


# === CSV and TSV ===


def _read_lines(file: IO[str], path: str | AnyPath, ending: str) -> Iterator[tuple[str, Row]]:
    """The rows of a CSV or TSV."""
    lines = _LINES[ending](file, path)
    header = _header(lines, path)
    for where, fields in lines:
        if isinstance(fields, RowFault):
            yield where, fields
        elif len(fields) == len(header):
            yield where, dict(zip(header, fields, strict=True))
        else:
            yield where, MORE_FIELDS if len(fields) > len(header) else FEWER_FIELDS


def _header(lines: Iterator[tuple[str, list[str]]], path: str | AnyPath) -> list[str]:
    """The names in the first line, which is consumed."""
    where, header = next(lines, ("", []))
    header = [name.strip() for name in header]
    check_header(header, Place(str(path), where))
    return header


def check_header(names: Sequence[str], place: Place) -> None:
    """Raises InputError if two columns share a name. Several columns may have no name."""
    twice = [name for index, name in enumerate(names) if name and name in names[:index]]
    if twice:
        raise InputError(f"two columns are called {twice[0]}", place, "rename one")


def _csv_fields(file: IO[str], path: str | AnyPath) -> Iterator[tuple[str, list[str]]]:
    """Yields the fields of each non-blank row of a CSV, with the number of the row's last line."""
    start = []  # the header and blank lines before it
    for line in file:
        start.append(line)
        if line.strip():
            break
    plain = _QUOTED.sub("", "".join(start))
    separator = next((mark for mark in _SEPARATORS if mark in plain), ",")
    # Strict: otherwise an unclosed quote would pull the following rows into its field.
    reader = csv.reader(itertools.chain(start, file), strict=True, delimiter=separator)
    first = 1
    try:
        for fields in reader:
            # Spreadsheets write rows in which all fields are empty.
            if any(map(str.strip, fields)):
                yield f"line {reader.line_num}", fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"the row that starts here: {error}",
            Place(str(path), f"line {first}"),
            "close its quotes, and double quotes inside fields",
        ) from None


def _tsv_fields(file: IO[str], _: str | AnyPath) -> Iterator[tuple[str, list[str] | RowFault]]:
    """Yields the fields of each non-blank line of a TSV; a RowFault if a row is broken in two."""
    width = 0
    before: tuple[str, list[str]] | None = None
    for number, line in enumerate(file, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        fields = line.split("\t")
        # Quoted fields may contain tabs. A caption that merely starts with a quote is not quoted.
        if width and len(fields) > width:
            quoted = _TSV_FIELD.findall(line)
            fields = quoted if len(quoted) == width else fields
        width = width or len(fields)
        if before is not None:
            is_half = len(fields) < width and _is_open(before[1][-1])
            yield before[0], LINE_BREAK if is_half else list(map(_unquote, before[1]))
        before = f"line {number}", fields
    if before is not None:
        yield before[0], list(map(_unquote, before[1]))


def _is_open(field: str) -> bool:
    return field.startswith('"') and field.count('"') % 2 == 1


def _unquote(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    if quoted and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


_LINES: dict[str, Callable[..., Iterator]] = {".csv": _csv_fields, ".tsv": _tsv_fields}


# === Parquet ===


def _read_parquet(path: str | AnyPath) -> Iterator[tuple[str, Row]]:
    with opened_parquet(path) as file:
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{PARQUET_ROW}{number}", row


@contextlib.contextmanager
def opened_parquet(path: str | AnyPath) -> Iterator[Any]:
    """Opens a ``pyarrow.parquet.ParquetFile``; raises an InputError if it is not readable."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow", Place(str(path)), "pip install 'align-keras[data]'"
        ) from None
    try:
        found = paths.path_of(path)
        # pyarrow's own file systems use other addresses and logins.
        source = found.open("rb") if paths.is_remote(found) else str(path)
        with pyarrow.parquet.ParquetFile(source) as file:
            check_header(file.schema_arrow.names, Place(str(path)))
            yield file
    # pyarrow decodes texts only when they are read.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"not readable as Parquet ({reason})", Place(str(path))) from None
