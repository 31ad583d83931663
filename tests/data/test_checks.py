import gzip
from pathlib import Path

import pytest
import tensorflow as tf

from align_keras.data import checks, records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError, Place

PAIR = records.make_record(b"jpeg", "a caption", "k")


@pytest.fixture
def shard(tmp_path):
    with ShardWriter(str(tmp_path / "train"), shard_size=10) as writer:
        for _ in range(10):
            writer.write(PAIR)
    return writer.shards[0]


def flip_byte(path, position):
    data = bytearray(Path(path).read_bytes())
    data[position] ^= 0xFF
    Path(path).write_bytes(data)


def warnings_of(caplog):
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def write_shard(path, serialized):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record)
    return str(path)


def example(**fields):
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in fields.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.mark.parametrize(
    ("serialized", "row", "problem"),
    [
        ([], "", "no readable record in the shard"),
        ([b"\xff\xff\xffnonsense"], "record 0", "not a tf.train.Example"),
        ([example(image=b"x", txt=b"a")], "record 0", "no field jpg, only image, txt"),
        ([example(jpg=b"x")], "record 0", "no field txt, only jpg"),
        (
            [PAIR, example(jpg=b"x", txt="Café".encode("latin-1"))],
            "record 1",
            "the caption (txt) is not UTF-8",
        ),
    ],
)
def test_check_shards_names_the_place_and_the_fault(serialized, row, problem, tmp_path):
    shard = write_shard(tmp_path / "bad.tfrecord", serialized)
    with pytest.raises(InputError) as caught:
        checks.check_shards([shard])
    assert caught.value.place == Place(shard, row)
    assert caught.value.problem == problem
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_check_shards_passes_over_a_corrupt_record(shard):
    flip_byte(shard, 30)
    checks.check_shards([shard])


def test_check_shards_passes_over_a_record_that_protobuf_refuses(tmp_path):
    checks.check_shards([write_shard(tmp_path / "x.tfrecord", [PAIR, b"\xff\xff\xffnonsense"])])


def test_a_damaged_shard_beside_good_ones_is_passed_over(shard, tmp_path, caplog):
    broken = str(tmp_path / "broken.tfrecord")
    Path(broken).write_bytes(Path(shard).read_bytes())
    flip_byte(broken, 0)
    checks.check_shards([broken, shard])
    assert records.count_records(broken) == 1
    (line,) = warnings_of(caplog)
    assert line.startswith(f"{broken}: ends early, in record 0")
    with pytest.raises(ValueError, match="broken.tfrecord: no readable record in the shard"):
        checks.check_shards([broken])
    empty = tmp_path / "empty.tfrecord"
    empty.touch()
    with pytest.raises(ValueError, match="empty.tfrecord: no readable record in the shard"):
        checks.check_shards([shard, str(empty)])


def test_statistics_that_alone_count_are_checked(shard, tmp_path, caplog):
    compressed = tmp_path / "x.tfrecord.gz"
    compressed.write_bytes(gzip.compress(Path(shard).read_bytes()))
    statistics = tmp_path / "x_stats.json"
    statistics.write_text('{"successes": 10}')
    checks.check_shards([str(compressed)])
    assert warnings_of(caplog) == []
    statistics.write_text('{"successes": 6}')
    checks.check_shards([str(compressed)])
    assert warnings_of(caplog) == [
        f"{compressed}: more records than the 6 in {statistics}; delete that file"
    ]
    compressed.write_bytes(b"nonsense")
    checks.check_shards([shard, str(compressed)])
    assert warnings_of(caplog) == [
        f"{compressed}: no readable record in the shard; remove the shard or write it again"
    ]
