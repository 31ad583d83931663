import csv
import gzip
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from align_keras.data.examples.image_files import ImageFolder
from align_keras.data.examples.tables import (
    FEWER_FIELDS,
    LINE_BREAK,
    MORE_FIELDS,
    NO_OBJECT,
    read_table,
)
from align_keras.errors import InputError, MissingInputError, Place

ROWS = [
    {"image": "a.jpg", "caption": "naïve, “quoted”\tred"},
    {"image": "b.png", "caption": "b"},
]


@pytest.mark.parametrize("extension", ["jsonl", "csv", "tsv", "parquet"])
def test_tables_read_alike(extension, tmp_path):
    path = tmp_path / f"table.{extension}"
    if extension == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    elif extension == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "," if extension == "csv" else "\t"
            writer = csv.DictWriter(file, ["image", "caption"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    assert [row for _, row in read_table(path)] == ROWS


def test_a_quote_that_opens_a_tsv_caption_is_part_of_it(tmp_path):
    captions = [
        '"Great" said the man',
        '"never closed',
        'the 7" single',
        'say "hi"',
        '"A", he "B"',
        '""',
        "tab\there",
        'a "tab\tthere"',
    ]
    written = [*captions[:-2], '"tab\there"', '"a ""tab\tthere"""']
    lines = ["image\tcaption", *(f"{i}.jpg\t{caption}" for i, caption in enumerate(written))]
    (tmp_path / "t.tsv").write_text("\r\n".join([*lines, "", "short.jpg"]))
    *rows, short = [row for _, row in read_table(tmp_path / "t.tsv")]
    captions[captions.index('""')] = ""
    assert [row["caption"] for row in rows] == captions
    assert [row["image"] for row in rows] == [f"{i}.jpg" for i in range(8)]
    assert short == FEWER_FIELDS


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('image,caption\na.jpg,"open\nb.jpg,x\nc.jpg,y\n', 2),
        ('image,caption\na.jpg,x\nb.jpg,"open\nc.jpg,"closed"\n', 3),
        ('"image,caption\na.jpg,x\n', 1),
    ],
)
def test_an_unclosed_quote_of_a_csv_is_named(text, line, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match="; close its quotes") as caught:
        list(read_table(tmp_path / "t.csv"))
    assert caught.value.place == Place(str(tmp_path / "t.csv"), f"line {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.jsonl",
            '{"caption": "Café"}'.encode("latin-1"),
            "x.jsonl line 1: not UTF-8 .byte 0xe9.;",
        ),
        ("x.xlsx", b"", "x.xlsx must end in .jsonl, .csv, .tsv or .parquet"),
        ("x.parquet", b"nonsense", "x.parquet: not readable as Parquet"),
    ],
)
def test_unreadable_tables_are_named(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_table(path))
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingInputError, match="^no file .*none.csv; give a JSONL, CSV"):
        list(read_table(tmp_path / "none.csv"))
    with pytest.raises(MissingInputError, match="^no folder .*none$"):
        ImageFolder(tmp_path / "none")


def rows_of(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(path))


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ","), ("t.tsv", "\t"), ("t.csv", ";")])
def test_rows_of_other_lengths_than_the_header_are_faults(name, mark, tmp_path):
    lines = ["image,caption,split", "0.jpg,a dog, a cat,train", "1.jpg,two men,train", "2.jpg,a"]
    found = rows_of(tmp_path / name, "\n".join(lines).replace(",", mark) + "\n")
    good = {"image": "1.jpg", "caption": "two men", "split": "train"}
    assert found == [("line 2", MORE_FIELDS), ("line 3", good), ("line 4", FEWER_FIELDS)]


def test_a_line_break_in_a_tsv_costs_its_row(tmp_path):
    found = rows_of(tmp_path / "t.tsv", 'image\tcaption\n0.jpg\t"a dog\nruns"\n1.jpg\t"b"\n')
    rows = [LINE_BREAK, FEWER_FIELDS, {"image": "1.jpg", "caption": "b"}]
    assert [row for _, row in found] == rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("T.CSV", "image,caption\n0.jpg,a\n"),
        ("t.csv", "\ufeffimage,caption\r\n0.jpg,a\r\n\r\n"),
        ("t.csv", "\n \nimage;caption\n0.jpg;a\n"),
        ("t.csv", "image\tcaption\n0.jpg\ta\n\t\n"),
        ("t.csv", "image| caption\n0.jpg|a\n"),
        ("t.csv", '"image", "caption"\n0.jpg,a\n'.replace(", ", ",")),
        ("t.jsonl", '{"image": "0.jpg", "caption": "a"}'),
        ("t.JSONL", '\ufeff\r\n{"image": "0.jpg", "caption": "a"}\r\n'),
    ],
)
def test_spellings_of_a_table_read_alike(name, text, tmp_path):
    row = {"image": "0.jpg", "caption": "a"}
    assert [found for _, found in rows_of(tmp_path / name, text)] == [row]
    packed = gzip.compress(text.encode())
    assert [found for _, found in rows_of(tmp_path / f"{name}.gz", packed)] == [row]


def test_columns_of_one_name_are_refused_and_of_none_are_not(tmp_path):
    for name in ("t.csv", "t.tsv"):
        mark = {"t.csv": ",", "t.tsv": "\t"}[name]
        with pytest.raises(InputError, match="line 1: two columns are called caption; rename one"):
            rows_of(tmp_path / name, f"image{mark}caption{mark}caption\n")
        # The index of pandas has no name, and some spreadsheets end each line with a separator.
        ((_, row),) = rows_of(tmp_path / name, ",image,,\n7,0.jpg,,\n".replace(",", mark))
        assert row == {"": "", "image": "0.jpg"}


def test_json_that_no_row_can_be_is_a_fault_of_its_line(tmp_path):
    deep = "[" * 100_000
    found = rows_of(tmp_path / "t.jsonl", f'{{"n": {"9" * 5000}}}\n{{"n": {deep}\n{{"n": 1}}\n')
    assert [row for _, row in found] == [NO_OBJECT, NO_OBJECT, {"n": 1}]


def test_parquet_with_a_text_that_is_no_utf8_is_one_line(tmp_path):
    """pyarrow accepts such bytes as text and fails only when the text is read."""
    offsets, data = np.array([0, 2], "int32"), b"\xd9a"
    text = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(offsets), pyarrow.py_buffer(data))
    pyarrow.parquet.write_table(pyarrow.table({"caption": text}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: not readable as Parquet \('utf-8' codec"):
        list(read_table(tmp_path / "t.parquet"))
