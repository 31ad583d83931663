"""Karpathy's files: other kinds of JSON are recognised, and faults are reported."""

import json

import pytest

from align_keras.data.examples import open_examples
from align_keras.errors import InputError

IMAGE = {"filename": "0.jpg", "split": "test", "sentences": [{"raw": " a ball "}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([IMAGE], "no file of Karpathy's splits .*; write one object per line"),
        ({"annotations": [], "images": []}, "but an object of annotations, images"),
        ({"image": {"0": "0.jpg"}}, "but an object of image"),
        ({"images": [IMAGE, {"filename": "1.jpg", "split": "test"}]}, "image 1: needs .*split$"),
        ({"images": [IMAGE, 7]}, "image 1: needs filename and sentences with raw, has no object"),
        ({"images": [IMAGE]}, "has no image of the split val; it has test"),
    ],
)
def test_what_is_wrong_is_named(content, message, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        open_examples(tmp_path / "d.json", "val")


def test_lines_of_json_are_called_a_table(tmp_path):
    (tmp_path / "d.json").write_text(json.dumps(IMAGE) + "\n" + json.dumps(IMAGE) + "\n")
    with pytest.raises(InputError, match="one object per line, give it the ending .jsonl"):
        open_examples(tmp_path / "d.json")


def test_a_caption_that_is_no_text_is_named(tmp_path):
    rows = [IMAGE, {**IMAGE, "sentences": [{"raw": 7}]}]
    (tmp_path / "d.json").write_text(json.dumps({"images": rows}))
    found = open_examples(tmp_path / "d.json")
    with pytest.raises(InputError, match=r"d.json image 1 \(0.jpg\): caption is a number"):
        found.check_captions()
