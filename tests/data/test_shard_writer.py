import pytest
import tensorflow as tf

from align_keras.data import records
from align_keras.data.shard_writer import ShardWriter, write_shard

RECORDS = [records.make_record(b"jpeg", f"caption {index}", f"k{index}") for index in range(10)]


def test_writer_splits_shards_and_removes_a_half_written_one(tmp_path):
    with ShardWriter(str(tmp_path / "a"), 4) as writer:
        for record in RECORDS:
            writer.write(record)
    assert [records.count_records(path) for path in writer.shards] == [4, 4, 2]
    with (
        pytest.raises(RuntimeError, match="stop"),
        ShardWriter(str(tmp_path / "b"), 4) as writer,
    ):
        for record in RECORDS[:6]:
            writer.write(record)
        raise RuntimeError("stop")
    names = sorted(path.name for path in tmp_path.glob("b*"))
    assert names == ["b-00000.tfrecord", "b-00000_stats.json"]


def test_a_whole_shard_is_written_beside_its_statistics(tmp_path):
    shard = str(tmp_path / "folder" / "a-00000.tfrecord")
    for frames in (RECORDS[:3], RECORDS):  # a second write replaces the first
        write_shard(shard, frames)
        assert [record.numpy() for record in tf.data.TFRecordDataset(shard)] == frames
        assert records.stated_alone(f"{shard}.gz") == len(frames)
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == ["a-00000.tfrecord", "a-00000_stats.json"]
