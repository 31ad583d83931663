"""Lists of captions that are written as text."""

import json

import numpy as np
import pytest

from align_keras.data import records
from align_keras.data.examples import open_examples
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.example import NoCaption
from align_keras.data.examples.text_lists import parsed
from align_keras.data.shard_writer import write_shard

CAPTIONS = ["a red ball", "it's a ball, on blue", 'the 7" single', "naïve\nline"]


@pytest.mark.parametrize("is_list", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CAPTIONS),
        json.dumps(CAPTIONS, ensure_ascii=False),
        repr(CAPTIONS),
        str(np.array(CAPTIONS)),
        f" {CAPTIONS!r}\n",
        repr(tuple(CAPTIONS)),
    ],
)
def test_json_python_and_numpy_are_read(text, is_list):
    assert parsed(text, is_list) == CAPTIONS


def test_what_is_no_list_of_texts_is_a_caption_but_in_a_column_of_lists():
    (unreadable,) = parsed("[a red ball, a ball]", True)
    assert isinstance(unreadable, NoCaption)
    assert parsed("[1, 2]", True) == [1, 2]
    for text in (
        "[a red ball, a ball]",
        "[1, 2]",
        "a dog [left]",
        "[sic] a dog",
        "['a', b]",
        "('a')",
    ):
        assert parsed(text, False) == text
    assert parsed("['a', nan, None]", False) == ["a", None, None]
    assert parsed("[]", False) == []
    # The time must grow linearly with the length.
    open_list = "[" + "'a'  " * 5_000 + "x]"
    assert parsed(open_list, False) == open_list


@pytest.mark.parametrize("column", ["captions", "caption", "raw"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_every_table_gives_its_lists(name, column, tmp_path):
    text = repr(CAPTIONS[:3]).replace('"', '""')
    mark = "\t" if name == "t.tsv" else ","
    lines = f'image{mark}{column}\n0.jpg{mark}"{text}"\n'
    if name == "t.jsonl":
        lines = json.dumps({"image": "0.jpg", column: repr(CAPTIONS[:3])})
    (tmp_path / name).write_text(lines)
    if column == "raw":
        (row,) = [{"raw": repr(CAPTIONS[:3])}]
        assert Columns(caption="raw").texts_of(row) == tuple(CAPTIONS[:3])
        return
    (example,) = open_examples(tmp_path / name)
    assert example.captions == tuple(CAPTIONS[:3])


def test_a_shard_is_evaluated_as_it_is_trained_on(tmp_path):
    text = json.dumps(CAPTIONS)
    shard = str(tmp_path / "s.tfrecord")
    write_shard(shard, [records.make_record(b"jpeg", text, "k")])
    (example,) = open_examples(shard)
    assert example.captions == (text,)
