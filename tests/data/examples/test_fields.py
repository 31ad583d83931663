"""The meaning of absent, blank and contradictory fields, which is the same for every source."""

import json

import pytest

from align_keras.data import records
from align_keras.data.examples import open_examples, open_images
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.example import as_id, as_label, as_text
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError, MissingInputError

NAN = float("nan")


def table(folder, *rows):
    folder.mkdir(exist_ok=True)
    rows = [{"image": f"{index}.jpg", **row} for index, row in enumerate(rows)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "t.jsonl"


def shards(folder, *rows):
    with ShardWriter(str(folder / "s"), 2) as writer:
        for row in rows:
            row = {name: value for name, value in row.items() if value is not None}
            caption = row.pop("caption", "")
            writer.write(records.make_record(b"jpeg", caption, "k", **row))
    return f"{folder}/s-*.tfrecord"


@pytest.mark.parametrize("absent", [None, "", " \t", NAN, [], b" "])
def test_absent_and_blank_are_the_same(absent):
    assert as_text(absent) == as_id(absent) == ""
    assert as_label(absent) is None


def test_numbers_and_texts_are_the_same():
    assert as_text(5) == as_text("5") == as_text(b"5") == "5"
    assert as_id(0) == as_id("0") == "0"
    assert as_id(1.5) == ""
    assert as_label(3) == as_label("3") == as_label(b"3") == 3
    # pandas writes the whole numbers of a column as floats if one of them is missing.
    assert as_text(5.0) == as_id(5.0) == "5"
    assert as_label(3.0) == as_label("3.0") == 3
    assert as_label(2.5) is as_label(float("inf")) is None
    assert as_label(-1) is as_label("x") is as_label("²") is as_label(True) is None


@pytest.mark.parametrize("write", [table, shards])
def test_white_space_is_no_caption_and_no_class(write, tmp_path):
    rows = [{"caption": " \n", "class_name": " "}, {"caption": "a b", "class_name": "c"}]
    found = list(open_examples(write(tmp_path, *rows)))
    assert [example.captions for example in found] == [(), ("a b",)]
    assert [example.class_name for example in found] == ["", "c"]


def test_captions_come_from_the_first_column_that_has_one():
    columns = Columns()
    assert columns.texts_of({"captions": [" ", "x"], "caption": "y"}) == (" ", "x")
    assert columns.texts_of({"captions": " ", "caption": "y"}) == ("y",)
    assert columns.texts_of({"captions": [], "caption": 7}) == (7,)
    assert columns.texts_of({"caption": " "}) == (" ",)
    (missing,) = columns.texts_of({"image": "a"})
    assert missing.reason == "no column captions, caption, txt or text, only image"
    assert Columns(caption="title").texts_of({"caption": "y", "title": "z"}) == ("z",)


@pytest.mark.parametrize("write", [table, shards])
def test_names_follow_their_labels(write, tmp_path):
    rows = [{"class_name": "zebra", "label": 0}, {"class_name": "ant", "label": 1}]
    assert open_examples(write(tmp_path, *rows)).class_names == ("zebra", "ant")


@pytest.mark.parametrize("write", [table, shards])
@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([("b", None), ("a", None), ("b", None)], ("a", "b")),
        ([("b", 0), ("b", None), ("a", 1)], ("b", "a")),
        ([("b", None), ("b", 0)], ("b",)),
        ([("b", 0), ("a", 2)], None),
        ([("", 1), ("", 0)], None),
    ],
)
def test_labels_may_be_absent_or_have_gaps(write, rows, names, tmp_path):
    rows = [{"class_name": name, "label": label} for name, label in rows]
    assert open_examples(write(tmp_path, *rows)).class_names == names


@pytest.mark.parametrize("write", [table, shards])
@pytest.mark.parametrize(
    ("rows", "problem", "row"),
    [
        ([("a", 0), ("b", 0)], "label 0 is class b, but a at .*", 1),
        ([("a", 0), ("a", 1)], "class a has the label 1, but the label 0 at .*", 1),
        ([("a", 0), ("b", None)], "class b has no label, but others have", 1),
    ],
)
def test_labels_and_names_that_contradict_are_refused(write, rows, problem, row, tmp_path):
    rows = [{"class_name": name, "label": label} for name, label in rows]
    found = open_examples(write(tmp_path, *rows))
    with pytest.raises(InputError, match=problem) as caught:
        _ = found.class_names
    assert caught.value.place.row == {table: f"line {row + 1}", shards: f"record {row}"}[write]


def test_faults_of_a_table_are_named_with_their_row(tmp_path):
    for line, problem in (
        ("[1]", "not a JSON object"),
        ("{}", "no column image, and no other"),
        ('{"filepath": 1, "title": 2}', "no column image, only filepath, title"),
        ('{"image": " "}', "image is empty"),
        ('{"image": NaN}', "image is empty"),
        ('{"image": 7}', "image is not text"),
        ('{"image": {"bytes": 1}}', "image is an object of bytes, not the path of an image"),
    ):
        (tmp_path / "t.jsonl").write_text('{"image": "a.jpg"}\n' + line + "\n")
        for opened in (open_examples, open_images):
            with pytest.raises(InputError) as caught:
                opened(tmp_path / "t.jsonl")
            assert caught.value.problem == problem
            assert caught.value.place.row == "line 2"


def test_a_corrupt_record_is_left_out_and_is_an_image_without_bytes(tmp_path, caplog):
    pattern = shards(tmp_path, {"caption": "a"}, {"caption": "b"})
    path = tmp_path / "s-00000.tfrecord"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        assert [example.captions for example in open_examples(pattern)] == [("b",)]
    assert [one.getMessage() for one in caplog.records] == [f"{path}: 1 damaged record left out"]
    bad, good = open_images(pattern).images()
    assert (bad.fault, good.fault, good.captions) == ("corrupt record", None, ("b",))
    with pytest.raises(OSError, match="corrupt record"):
        bad.load()


@pytest.mark.parametrize(
    ("data", "options", "problem", "remedy"),
    [
        ("none.jsonl", {}, "no file none.jsonl", ""),
        ("none.json", {}, "no file none.json", "give a file"),
        ("none-*", {}, "no file matches 'none-*'", "give a folder"),
        ("", {"split": "dev"}, "no folder {}/dev for the split dev", "there are test, train"),
        ("test", {}, "{}/test has no ", "give such a folder"),
        ("t.jsonl", {"split": "dev"}, "{}/t.jsonl has no row with split=dev", "split is a, b"),
        ("t.jsonl", {"select": ("label=9",)}, "{}/t.jsonl has no row with label=9", "label is 1"),
        (
            "t.jsonl",
            {"split": "b", "select": ("label=2",)},
            "{}/t.jsonl has no row with label=2 and split=b",
            "label is 1; split is a, b",
        ),
        ("s-*.tfrecord", {"split": "dev"}, "shards have no split dev", "pattern"),
        (
            "s-*.tfrecord",
            {"select": ("a=b",)},
            "{}/s-*.tfrecord is not a table, so it has no rows",
            "leave out select",
        ),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(data, options, problem, remedy, tmp_path):
    table(tmp_path, {"label": 1, "split": "a"}, {"label": 1.0, "split": "b"})
    shards(tmp_path, {"caption": "a"})
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    name = data if data.startswith("none") else f"{tmp_path}/{data}".rstrip("/")
    with pytest.raises(InputError) as caught:
        open_examples(name, **options)
    assert caught.value.problem.startswith(problem.format(tmp_path))
    assert remedy in str(caught.value)
    assert isinstance(caught.value, MissingInputError) == problem.startswith("no f")


def test_splits_are_found_in_tables_and_folders(tmp_path):
    path = table(tmp_path, {"split": "test"}, {"split": "train"}, {"split": "train"})
    assert [example.key for example in open_examples(path)] == ["line 1"]
    assert [example.key for example in open_examples(path, "train")] == ["line 2", "line 3"]
    assert open_images(path).count == 3
    for name in ("test/a", "train/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.jpg").write_bytes(b"")
    assert open_examples(tmp_path).class_names == ("a",)
    assert open_examples(tmp_path, "train").class_names == ("b",)
    assert open_images(tmp_path).count == 3


def test_a_condition_is_column_and_value():
    for value, other in (("1", "2"), (1, 2), (1.0, 1.5), ("1", None), (b"1", "11")):
        assert Columns(select=("fold=1",)).selects({"fold": value})
        assert not Columns(select=("fold=1",)).selects({"fold": other})
    with pytest.raises(InputError, match="'split' must be COLUMN=VALUE") as caught:
        Columns(select=("split",))
    assert caught.value.setting == "select"
