import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from align_keras.data.examples.image_files import ImageFolder
from align_keras.data.examples.tables import FEWER_FIELDS, read_table
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
