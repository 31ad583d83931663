import gzip
import json
from pathlib import Path

import pytest
import tensorflow as tf

from align_keras.data import records, shard_names
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError, MissingInputError, Place

RECORDS = [
    records.make_record(bytes([65 + i]) * 50, f"caption {i}", f"k{i}", image_id=f"i{i // 2}")
    for i in range(10)
]


@pytest.fixture
def shard(tmp_path):
    with ShardWriter(str(tmp_path / "train"), shard_size=10) as writer:
        for record in RECORDS:
            writer.write(record)
    return writer.shards[0]


def flip_byte(path, position):
    data = bytearray(Path(path).read_bytes())
    data[position] ^= 0xFF
    Path(path).write_bytes(data)


def frame_start(index):
    return sum(len(record) + 16 for record in RECORDS[:index])


def test_tensorflow_reads_what_is_written_and_the_other_way(shard):
    from_tensorflow = [r.numpy() for r in tf.data.TFRecordDataset(shard)]
    assert from_tensorflow == RECORDS
    assert list(records.read_frames(shard)) == RECORDS


def test_gzip_shards_read_the_same(shard, tmp_path):
    compressed = tmp_path / "other.tfrecord.gz"
    compressed.write_bytes(gzip.compress(Path(shard).read_bytes()))
    assert list(records.read_frames(str(compressed))) == RECORDS
    assert records.count_records(str(compressed)) == 10


def test_a_flipped_byte_costs_one_record(shard):
    flip_byte(shard, frame_start(3) + 40)
    assert list(records.read_frames(shard)) == [*RECORDS[:3], None, *RECORDS[4:]]
    # TensorFlow's own reader ends there, which is the reason for ours.
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(shard))


def test_a_corrupt_length_or_a_cut_file_costs_the_rest(shard):
    Path(shard).write_bytes(Path(shard).read_bytes()[:-20])
    assert list(records.read_frames(shard)) == [*RECORDS[:9], None]
    flip_byte(shard, frame_start(4))
    assert list(records.read_frames(shard)) == [*RECORDS[:4], None]
    assert list(records.read_records(shard, 10)) == RECORDS[:4] + [b""] * 6


def test_a_cut_gzip_file_costs_the_rest(shard, tmp_path):
    cut = tmp_path / "cut.tfrecord.gz"
    cut.write_bytes(gzip.compress(Path(shard).read_bytes(), mtime=0)[:-30])
    frames = list(records.read_frames(str(cut)))
    assert frames[-1] is None
    assert frames[:-1] == RECORDS[: len(frames) - 1]


def test_counts_come_from_statistics_or_headers(shard):
    statistics = Path(shard_names.stats_path(shard))
    assert json.loads(statistics.read_text()) == {"successes": 10}
    assert records.count_records(shard) == 10
    statistics.unlink()
    flip_byte(shard, frame_start(2) + 30)
    assert records.count_records(shard) == 10
    statistics.write_text('{"successes": 3}')
    assert records.count_records(shard) == 10
    statistics.write_text('{"successes": 12}')
    assert records.count_records(shard) == 12
    statistics.write_text("{}")
    with pytest.raises(InputError, match="no integer 'successes'") as caught:
        records.count_records(shard)
    assert caught.value.place == Place(str(statistics))


def warnings_of(caplog):
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_a_shard_that_ends_early_is_named(shard, tmp_path, caplog):
    whole = Path(shard).read_bytes()
    assert records.count_records(shard) == 10
    flip_byte(shard, frame_start(3) + 40)  # loses one record, and reading goes on
    assert records.count_records(shard) == 10
    assert warnings_of(caplog) == []
    flip_byte(shard, frame_start(4))
    assert records.count_records(shard) == 10
    (line,) = warnings_of(caplog)
    assert line.startswith(f"{shard}: ends early, in record 4 (")
    assert "10 records were written" in line
    Path(shard_names.stats_path(shard)).unlink()
    assert records.count_records(shard) == 5
    (line,) = warnings_of(caplog)
    assert "the rest is lost" in line
    Path(shard).write_bytes(whole[: frame_start(7) + 20])
    assert records.count_records(shard) == 8
    assert len(warnings_of(caplog)) == 1
    compressed = tmp_path / "cut.tfrecord.gz"
    compressed.write_bytes(gzip.compress(whole[: frame_start(7) + 20]))
    assert records.count_records(str(compressed)) == 8
    compressed.write_bytes(gzip.compress(whole, mtime=0)[:-30])
    assert 1 <= records.count_records(str(compressed)) <= 10
    assert warnings_of(caplog)[0].startswith(f"{compressed}: ends early, in record 7")


@pytest.mark.parametrize(
    ("shard", "statistics"),
    [
        ("d/00000.tfrecord", "d/00000_stats.json"),
        ("d/00000.tfrecord.gz", "d/00000_stats.json"),
        ("d/x-1.tfrecords", "d/x-1_stats.json"),
    ],
)
def test_statistics_stand_where_img2dataset_writes_them(shard, statistics):
    assert shard_names.stats_path(shard) == statistics


def test_find_shards_joins_patterns_and_names_the_one_without_files(shard, tmp_path):
    assert records.find_shards(f"{shard},{tmp_path}/train-*.tfrecord") == [shard]
    with pytest.raises(MissingInputError, match="^no file matches '/none/x-\\*'; give a quoted"):
        records.find_shards(f"{shard},/none/x-*")


def test_find_shards_passes_over_what_is_no_shard(shard, tmp_path):
    for name in ("._train-00000.tfrecord", "train-00001.tfrecord.partial"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train-folder").mkdir()
    assert records.find_shards(f"{tmp_path}/*train*") == [shard]
    hidden = tmp_path / ".hidden.tfrecord"
    hidden.write_bytes(Path(shard).read_bytes())
    assert records.find_shards(hidden) == [str(hidden)]


def test_captions_are_read_up_to_a_limit(shard):
    assert list(records.read_captions([shard, shard], 12)) == [
        f"caption {i % 10}" for i in range(12)
    ]


def test_names_with_commas_and_brackets_are_found(scene_shards, tmp_path):
    names = ["a,b [v2]/x-0.tfrecord", "a,b [v2]/x-1.tfrecord", "c-0.tfrecord", "c,d"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [str(tmp_path / name) for name in names]
    pattern = f"{tmp_path}/a,b [v2]/x-*"
    assert records.find_shards(pattern) == found[:2]
    assert records.find_shards(f"{pattern},{found[2]}") == found[:3]
    assert records.find_shards(f"{found[2]},{pattern}") == found[:3]
    assert records.find_shards(found[3]) == found[3:]
    with pytest.raises(MissingInputError, match="no file matches '/none'"):
        records.find_shards(f"{pattern},/none,{found[2]}")


def test_shards_elsewhere_are_found_where_tensorflow_reads():
    for name in ("a [1]/x-0.tfrecord", "a 1/x-0.tfrecord"):
        with tf.io.gfile.GFile(f"ram://records/{name}", "w") as file:
            file.write("x")
    found = records.find_shards("ram://records/a [1]/x-*")
    assert found == ["ram://records/a [1]/x-0.tfrecord"]
    assert records.find_shards("ram://records/a [0-9]/x-*") == ["ram://records/a 1/x-0.tfrecord"]
    with pytest.raises(InputError, match="^s3://b/x-\\*: TensorFlow has no file system s3://"):
        records.find_shards("s3://b/x-*")
