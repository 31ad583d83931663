"""TFDS sets, tested with a small local set in TFDS's own layout."""

import shutil

import pytest
import tensorflow as tf
from malformed import crashing
from tfds_set import write_tfds_set

from align_keras.data import records
from align_keras.data.examples import open_examples, tfds_builder, tfds_examples
from align_keras.data.examples.tfds_examples import TFDSExamples
from align_keras.data.preparation import filters, tfds_shards
from align_keras.data.preparation.filter_report import Tally
from align_keras.data.preparation.judging import Preparation
from align_keras.errors import InputError


@pytest.fixture(scope="module")
def tfds_folder(scene_shards, tmp_path_factory):
    return write_tfds_set(tmp_path_factory.mktemp("tfds"), scene_shards[0][:4])


def test_a_set_is_read_with_its_bytes_and_captions(tfds_folder, scene_shards):
    source = TFDSExamples(f"tfds:{tfds_folder}")
    tally = Tally()
    kept = [
        records.parse_pair(record)
        for part in source.parts
        for _, record in Preparation(source, filters.NO_RULES).kept(part, (), tally)
    ]
    originals = [
        records.parse_pair(record)
        for shard in scene_shards[0][:4]
        for record in records.read_frames(shard)
    ]
    assert tally.kept == 80
    assert [pair["jpg"] for pair in kept[::2]] == [pair["jpg"] for pair in originals]
    assert [pair["txt"] for pair in kept[::2]] == [pair["txt"] for pair in originals]
    assert kept[1]["txt"].startswith(b"another look")
    assert kept[0]["image_id"] == kept[1]["image_id"] == originals[0]["key"] + b".jpg"


def test_training_reads_a_set_by_its_name(tfds_folder, tmp_path):
    name = f"tfds:{tfds_folder.parent}@train"
    shards = tfds_shards.training_shards(name, tmp_path)
    assert sum(records.count_records(shard) for shard in shards) == 80
    before = tf.io.gfile.stat(shards[0]).mtime_nsec
    assert tfds_shards.training_shards(name, tmp_path) == shards
    assert tf.io.gfile.stat(shards[0]).mtime_nsec == before
    (elsewhere,) = tfds_shards.training_shards(name, "ram://tfds")
    assert records.count_records(elsewhere) == 80
    assert tfds_shards.training_shards(name, "ram://tfds") == [elsewhere]


def test_a_missing_set_or_split_is_one_line(tfds_folder):
    message = "has no split 'val'; it has train"
    with pytest.raises(InputError, match=message) as caught:
        TFDSExamples(f"tfds:{tfds_folder}@val")
    assert not caught.value.setting
    with pytest.raises(InputError, match=message) as caught:
        open_examples(f"tfds:{tfds_folder}", "val")
    assert caught.value.setting == "split"
    with pytest.raises(InputError, match="TFDS cannot open or prepare it") as caught:
        open_examples("tfds:no_such_set")
    assert "\n" not in str(caught.value)


def test_a_set_is_read_whole_in_parts_and_shuffled(tfds_folder):
    source = open_examples(f"tfds:{tfds_folder}", "train")
    ids = [example.image_id for part in source.parts for example in source.read(part)]
    assert len(source.parts) == 4
    assert len(set(ids)) == source.count == 40
    assert sorted(example.image_id for example in source) == sorted(ids)
    orders = [[example.image_id for example in source.shuffled(seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_images_without_an_id_have_one_name_however_they_are_read(tfds_folder, monkeypatch):
    monkeypatch.setattr(tfds_examples, "_ID_FIELDS", ())
    source = open_examples(f"tfds:{tfds_folder}", "train")
    ids = [example.image_id for example in source.images()]
    assert ids[0] == "train[0shard] record 0"
    assert len(set(ids)) == 40
    assert [example.image_id for example in source] == ids
    assert sorted(example.image_id for example in source.shuffled(1)) == sorted(ids)


def test_the_newest_version_is_that_of_the_highest_numbers(tmp_path):
    for version in ("9.0.0", "10.0.0", "2.10.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").touch()
    assert tfds_builder._versioned(str(tmp_path)) == str(tmp_path / "10.0.0")


def test_damaged_records_cost_themselves_alone(tfds_folder, tmp_path):
    """One of them would crash the process in TensorFlow's parser, and one ends TFDS's reader."""
    folder = shutil.copytree(tfds_folder, tmp_path / "scenes" / "1.0.0")
    path = next(folder.glob("*.tfrecord-00001-*"))
    frames = list(records.read_frames(str(path)))
    frames[2:4] = [crashing(frames[2]), records.make_record(b"jpeg", "", "k")]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for frame in frames:
            writer.write(frame)
    data = bytearray(path.read_bytes())
    data[sum(len(frame) + 16 for frame in frames[:6]) + 20] ^= 1
    path.write_bytes(data[:-20])
    source = TFDSExamples(f"tfds:{folder}")
    found = [example.fault for part in source.parts for example in source.read(part)]
    assert [number for number, fault in enumerate(found) if fault] == [12, 13, 16, 19]
    assert set(filter(None, found)) == {"corrupt record"}
    assert len(found) == source.count
