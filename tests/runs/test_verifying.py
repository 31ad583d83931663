import shutil

import pytest

from align_keras import checksums
from align_keras.data import records, shard_checksums, shard_sets
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError, MissingInputError
from align_keras.runs.verifying import verify


def lines(path):
    return [(str(found), [str(fault) for fault in found.faults]) for found in verify(str(path))]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def shards(tmp_path):
    with (
        shard_sets.unfinished(tmp_path / "set" / "train") as work,
        ShardWriter(str(work.folder / "train"), 2) as writer,
    ):
        for number in range(5):
            writer.write(records.make_record(b"jpg", "caption", str(number)))
    return tmp_path / "set"


@pytest.mark.parametrize("name", ["", "train", "train-*.tfrecord", "train-00001.tfrecord"])
def test_a_set_of_shards_is_found_by_its_folder_name_pattern_or_shard(name, shards):
    ((line, faults),) = lines(shards / name)
    assert line.startswith(f"{shards}/train: set of shards, 6 files, 0.0 MiB, all unchanged")
    assert not faults
    (shards / "train-00002.tfrecord").unlink()
    (shards / "train-00002_stats.json").unlink()
    flip(shards / "train-00000.tfrecord")
    ((line, faults),) = lines(shards / name)
    assert line.endswith("3 damaged")
    assert [fault.split(":")[0].split("/")[-1] for fault in faults] == [
        "train-00000.tfrecord",
        "train-00002.tfrecord",
        "train-00002_stats.json",
    ]


def test_a_run_an_export_and_their_folder_are_found(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "settings.json").write_text("{}")
    ((line, faults),) = lines(run)
    assert line.startswith(f"{run}/preset: preset, 8 files")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"graph")
    checksums.write_folder(tmp_path / "export")
    flip(tmp_path / "export" / "saved_model.pb")
    (export, faults), (preset, none) = lines(tmp_path)
    assert export == f"{tmp_path}/export: exported model, 1 file, 0.0 MiB, 1 damaged"
    assert faults[0].startswith(f"{tmp_path}/export/saved_model.pb: damaged: its checksum")
    assert (preset, none) == (line, [])
    (run / "preset" / "checksums.json").write_text("{")
    ((_, faults),) = lines(run)
    assert faults[0].startswith(f"{run}/preset/checksums.json: damaged: not a list of checksums")


def test_each_checkpoint_has_its_own_list(tmp_path):
    for name in ("ckpt-2", "ckpt-4"):
        (tmp_path / f"{name}.index").write_text(name)
        found = {f"{name}.index": checksums.of_file(tmp_path / f"{name}.index")}
        checksums.write(tmp_path / f"{name}.checksums.json", found)
    flip(tmp_path / "ckpt-4.index")
    (first, none), (second, faults) = lines(tmp_path)
    assert first.startswith(f"{tmp_path}/ckpt-2: checkpoint, 1 file") and not none
    assert second.startswith(f"{tmp_path}/ckpt-4: checkpoint") and len(faults) == 1


def test_what_has_no_checksums_is_said_to_have_none(tiny_run, shards, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "settings.json").write_text("{}")
    (run / "preset" / "checksums.json").unlink()
    assert lines(run) == [(f"{run}/preset: preset without checksums", [])]
    assert lines(run / "preset") == [(f"{run}/preset: preset without checksums", [])]
    (shards / "train-checksums.json").unlink()
    without = [(f"{shards}/train: set of shards without checksums", [])]
    assert lines(shards / "train-*.tfrecord") == without
    assert lines(shards) == [(f"{shards}: folder without checksums", [])]
    with pytest.raises(MissingInputError, match="none: no such file or folder"):
        verify(str(tmp_path / "none"))


def test_damaged_statistics_are_reported_before_training(shards, caplog):
    found = records.find_shards(f"{shards}/train-*.tfrecord")
    shard_checksums.check_statistics(found)
    (shards / "train-00000.tfrecord").write_bytes(b"cut")
    (shards / "train-00002_stats.json").unlink()  # its records are counted
    shard_checksums.check_statistics(found)
    assert "train-00000.tfrecord: damaged: 3 bytes, not the" in caplog.text
    statistics = shards / "train-00001_stats.json"
    statistics.write_text(statistics.read_text().replace("2", "9"))
    with pytest.raises(InputError, match="00001_stats.json: damaged: .* or delete it"):
        shard_checksums.check_statistics(found)
