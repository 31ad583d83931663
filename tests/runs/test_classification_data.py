"""A fault in labelled images is reported in one line with the setting and the place."""

import json

import numpy as np
import pytest
from experiments import CLASSIFICATION
from malformed import crashing
from PIL import Image

from align_keras.data import records
from align_keras.data.shard_writer import write_shard
from align_keras.errors import InputError
from align_keras.runs.classification_data import open_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes in ``train`` and ``test``, and tables that each have one fault."""
    folder = tmp_path_factory.mktemp("labelled")
    for split in ("train", "test"):
        for name in "ab":
            path = folder / "images" / split / name / "1.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(path)
    (folder / "bad.jpg").write_bytes(b"\xff\xd8broken")
    for name, image, classes in (
        ("bad", "bad.jpg", "ab"),
        ("gone", "gone.jpg", "ab"),
        ("one", str(path), "a"),
    ):
        rows = [{"image": image, "class_name": c, "split": "train"} for c in classes]
        rows += [{"image": str(path), "class_name": c, "split": "test"} for c in classes]
        write(folder / f"{name}.jsonl", rows)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings_of(**options):
    return CLASSIFICATION["small_set"].replace(model="none", task="letters", **options)


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"data": "none.jsonl"}, "data", "none.jsonl"),
        ({"data": ""}, "data", "letters"),
        ({"split": "train"}, "train_split", "train would be used for both training and testing"),
        ({"split": "dev"}, "split", "no folder .*dev for the split dev"),
        ({"train_split": "dev"}, "train_split", "no folder .*dev for the split dev"),
        ({"class_names": "none.txt"}, "class_names", "none.txt: no such file"),
        ({"data": "{folder}/one.jsonl"}, "data", "classification needs at least two classes"),
    ],
)
def test_wrong_data_are_named(options, setting, message, folder):
    options = {"data": str(folder / "images"), **options}
    options["data"] = options["data"].format(folder=folder)
    with pytest.raises(InputError, match=message) as raised:
        open_data(settings_of(**options))
    assert raised.value.setting == setting
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"), [("bad", "does not decode"), ("gone", "image cannot be read")]
)
def test_the_first_image_that_cannot_be_read_is_named(name, message, folder):
    _, train = open_data(settings_of(data=str(folder / f"{name}.jsonl")))
    with pytest.raises(InputError, match=message) as raised:
        train.check_readable()
    assert "line 1" in str(raised.value.place)
    assert f"{name}.jsonl" in str(raised.value.place)


def test_images_of_no_class_are_reported_before_anything_is_trained(tmp_path):
    rows = [{"image": "1.jpg", "class_name": name, "split": "train"} for name in "ab"]
    rows += [{"image": "2.jpg", "class_name": "c", "split": "test"}]
    table = tmp_path / "table.jsonl"
    write(table, rows)
    with pytest.raises(InputError, match="is none of the 2 of letters") as raised:
        open_data(settings_of(data=str(table)))
    assert raised.value.setting == "data"
    assert "line 3" in str(raised.value.place)


def test_damaged_records_are_images_that_are_skipped(scene_shards, tmp_path):
    """This includes records of a deleted shard, so all epochs have the same length."""
    for name, shard in zip(("train", "test"), scene_shards[0], strict=False):
        frames = list(records.read_frames(shard))
        frames[3:5] = [b"\xff" * 9, crashing(frames[4])]
        write_shard(str(tmp_path / f"{name}-00000.tfrecord"), frames)
    names = {
        records.parse_pair(frame)["class_name"]
        for s in scene_shards[0]
        for frame in records.read_frames(s)
    }
    (tmp_path / "names").write_bytes(b"\n".join(sorted(names)))
    options = {"data": f"{tmp_path}/test-*", "train_data": f"{tmp_path}/train-*"}
    _, train = open_data(settings_of(class_names=str(tmp_path / "names"), **options))
    assert train.count == 10
    found = list(train.read(0))
    assert [image == b"" for image, _, _ in found] == [index in (3, 4) for index in range(10)]
    path = tmp_path / "train-00000.tfrecord"
    assert {file for _, _, file in found} == {str(path)}
    path.unlink()
    assert train.watched.look() == {str(path): "is gone"}
    assert [image for image, _, _ in train.read(1)] == [b""] * 10


def test_every_epoch_has_all_images_in_an_order_of_its_own(folder):
    _, train = open_data(settings_of(data=str(folder / "images")))
    assert train.count == 2
    assert train.summary() == {"images": 2, "classes": ["a", "b"]}
    epochs = [[label for _, label, _ in train.read(epoch)] for epoch in range(8)]
    assert {tuple(epoch) for epoch in epochs} == {(0, 1), (1, 0)}
    assert epochs == [[label for _, label, _ in train.read(epoch)] for epoch in range(8)]
