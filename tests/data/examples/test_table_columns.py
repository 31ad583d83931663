"""If a column is missing, the error also names the existing columns, before a row is used."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from align_keras.data.examples import open_examples, open_images
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.table_columns import check_columns, check_data
from align_keras.data.preparation import preparing
from align_keras.errors import InputError

ROW = {"image": "0.jpg", "caption": "a ball", "NSFW": "no", "Kind": "toy"}


def write(folder, name):
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), path)
    elif name.endswith(".jsonl"):
        rows = [{"other": 1}, {name: ROW[name] for name in list(ROW)[:2]}, ROW]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        path.write_text("\n".join(mark.join(line) for line in (ROW, ROW.values())))
    return path


@pytest.fixture(params=["t.csv", "t.tsv", "t.parquet", "t.jsonl"])
def table(request, tmp_path):
    return write(tmp_path, request.param)


@pytest.mark.parametrize(
    ("columns", "needs", "missing", "setting", "remedy"),
    [
        ({"caption": "captoin"}, "captions", "captoin", "caption_column", "caption"),
        ({"image": "images"}, "image", "images", "image_column", "image"),
        ({"archive": "zip"}, "image", "zip", "archive_column", ""),
        ({"unsafe": "nsfw"}, "captions", "nsfw", "unsafe_field", "NSFW"),
        ({"carry": ("class_name=kind",)}, "captions", "kind", "carry", "Kind"),
        ({"select": ("splti=test",)}, "captions", "splti", "select", ""),
        ({}, "class", "class_name or label", "", ""),
    ],
)
def test_a_missing_column_is_named(columns, needs, missing, setting, remedy, table):
    check_columns(table, Columns(), ("image", "captions"))
    with pytest.raises(InputError) as caught:
        check_columns(table, Columns(**columns), ("image", needs))
    names = {*ROW, "other"} if table.suffix == ".jsonl" else {*ROW}
    problem, _, found = caught.value.problem.partition(", only ")
    assert problem == f"no column {missing}"
    assert set(found.split(", ")) == names
    assert caught.value.setting == setting
    assert caught.value.place.file == str(table)
    assert caught.value.remedy == (f"did you mean {remedy}?" if remedy else "")


def test_every_way_into_a_table_looks_for_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("filepath;title\n0.jpg;a ball, red\n")
    for read in (open_examples, open_images, preparing.open_pairs, lambda p: check_data(p, ())):
        with pytest.raises(InputError, match="no column image, only filepath, title"):
            read(str(tmp_path / "t.csv"))
    for name, check in (("images", "captions"), ("none.csv.d", "class")):
        check_data(str(tmp_path / name), (), check)  # not a table, by its name
    # The table has many long names, and one name that cannot be encoded.
    names = [f"{'long' * 20}{n}" for n in range(20)]
    (tmp_path / "t.jsonl").write_text(json.dumps(dict.fromkeys(names, 1) | {"\ud83d": 1}))
    with pytest.raises(InputError) as caught:
        check_data(str(tmp_path / "t.jsonl"), ())
    assert caught.value.problem.endswith(" and 9 more")
    assert len(caught.value.problem.encode()) < 600


def test_a_table_without_rows_or_objects_is_said_to_have_none(tmp_path):
    for name, text in (("t.csv", ""), ("t.csv", "image,caption\n"), ("t.jsonl", "\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="no row in the data"):
            preparing.open_pairs(str(tmp_path / name))
