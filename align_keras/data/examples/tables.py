"""Rows of tables: JSONL, CSV, TSV and Parquet."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from align_keras import paths
from align_keras.errors import InputError, MissingInputError, Place

#: Endings of tables, in lower case.
TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
# A field of a TSV: quoted up to the next tab, its inner quotes doubled, or as it stands.
_TSV_FIELD = re.compile(r'(?:^|\t)("(?:[^"]|"")*"(?=\t|$)|[^\t]*)')


def read_table(path: str | Path) -> Iterator[tuple[str, dict | None]]:
    """Reads rows from JSONL, CSV, TSV or Parquet, by the file's extension.

    A TSV holds one row a line. A quote in it is a character like others, unless it and another
    enclose a field whose inner quotes are doubled, as pandas writes one.

    Args:
        path: the table.

    Yields:
        ``(where, row)``: the place in the file, such as ``line 3``, and a dict, or None for a
        line of JSONL that is not a JSON object.

    Raises:
        MissingInputError: if there is no such file.
        InputError: if the extension is another one, the file is not UTF-8 or unreadable, a quote
            of a CSV is not closed, or pyarrow is missing for Parquet.
    """
    path = paths.local(path)
    if not path.is_file():
        raise MissingInputError(f"no file {path}", remedy="give a JSONL, CSV, TSV or Parquet table")
    extension = path.suffix.lower()
    if extension == ".parquet":
        yield from _read_parquet(path)
        return
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
    if extension not in readers:
        raise InputError(f"{path} must end in .jsonl, .csv, .tsv or .parquet")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from readers[extension](file, path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 ({error.reason} near byte {error.start})",
            Place(str(path)),
            "convert it, for example with iconv",
        ) from None


def _read_jsonl(file: TextIO, _: Path) -> Iterator[tuple[str, dict | None]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f"line {number}", _parse_object(line)


def _read_csv(file: TextIO, path: Path) -> Iterator[tuple[str, dict | None]]:
    # Strict: a quote that is not closed would take the rows after it into its field.
    reader = csv.DictReader(file, strict=True)
    first = 1
    try:
        if reader.fieldnames is not None:
            first = reader.line_num + 1
        for row in reader:
            yield f"line {reader.line_num}", row
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"the row from there on: {error}",
            Place(str(path), f"line {first}"),
            "close its quotes, and double those inside a field",
        ) from None


def _read_tsv(file: TextIO, _: Path) -> Iterator[tuple[str, dict | None]]:
    header = None
    for number, line in enumerate(file, 1):
        line = line.rstrip("\r\n")
        fields = line.split("\t")
        # Quoted fields may contain tabs. A caption that merely starts with a quote is not quoted.
        if header and len(fields) > len(header):
            fields = _TSV_FIELD.findall(line)
        fields = [_unquote(field) for field in fields]
        if header is None:
            header = fields
        elif line:
            yield f"line {number}", dict(zip(header, fields, strict=False))


def _unquote(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    if quoted and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def _parse_object(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _read_parquet(path: Path) -> Iterator[tuple[str, dict | None]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow", Place(str(path)), "pip install 'align-keras[data]'"
        ) from None
    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"not readable as Parquet ({reason})", Place(str(path))) from None
