"""On a full disk, a command ends with one line; once there is space, the same command continues."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf
from in_process import run_recipe_here
from matplotlib.figure import Figure
from small_files import small_files

from align_keras import checksums, figures
from align_keras.data import examples, records
from align_keras.errors import NoSpaceError
from align_keras.export import writing
from align_keras.runs.checkpoint_files import CheckpointFolder
from align_keras.runs.verifying import verify
from align_keras.search import indexing


@pytest.fixture(autouse=True)
def own_hook(monkeypatch):
    """Restores the hook that a command sets for its process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def run(limit, name, *flags):
    with small_files(limit):
        line = run_recipe_here(name, *flags)
    assert isinstance(line, str) and "\n" not in line
    assert line.endswith("free some space, then run the same command again"), line
    return line


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("limit", "rules", "file"),
    [
        (2_000, [], "train.unfinished/records-"),
        (4_096, [], "train.unfinished/set/train-00000.tfrecord"),
        (4_096, ["--max-images-per-caption=1000"], "train.unfinished/counts.duckdb"),
    ],
)
def test_packing(limit, rules, file, scene_photos, tmp_path):
    flags = [f"--captions={scene_photos / 'pairs.jsonl'}", f"--output={tmp_path / 'train'}"]
    line = run(limit, "prepare_data.py", *flags, *rules)
    assert line.startswith(f"prepare_data.py: {tmp_path}/{file}")
    assert names(tmp_path) == []
    assert run_recipe_here("prepare_data.py", *flags, *rules) is None
    (found,) = verify(str(tmp_path / "train"))
    assert not found.faults
    assert records.count_records(str(tmp_path / "train-00000.tfrecord")) == 90


def test_the_report_of_packing_belongs_to_the_set(scene_photos, tmp_path):
    flags = [f"--captions={scene_photos / 'pairs.jsonl'}", f"--output={tmp_path / 'train'}"]
    flags += ["--shard-size=1"]  # makes the report the largest file by far
    line = run(8_192, "prepare_data.py", *flags, "--max-words=2", "--min-words=1")
    assert line.startswith(f"prepare_data.py: {tmp_path}/train.unfinished/set/train-report.")
    assert names(tmp_path) == []


def refused(limit, call, *arguments, **options):
    with small_files(limit), pytest.raises(NoSpaceError) as raised:
        call(*arguments, **options)
    return str(raised.value)


def test_an_index_goes_on(tiny_model, scene_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_COMMIT_SECONDS", 0.0)
    source, index = examples.open_images(scene_photos / "test"), tmp_path / "index"
    build = functools.partial(indexing.build_index, tiny_model, source, index, batch_size=4)
    assert refused(8_192, build).startswith(f"{index}/thumbnails.bin: ")
    assert "progress.json" in names(index)
    header, embedded = build()
    assert 0 < embedded <= header.count == 15
    assert not list(checksums.faults(checksums.list_of(index)))


def test_a_picture_is_whole_or_not_there(tmp_path):
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((99, 99)))
    line = refused(4_096, figures.save, figure, tmp_path / "sheets" / "found.png")
    assert line.startswith(f"{tmp_path}/sheets/found.png: ")
    assert names(tmp_path) == ["sheets"]


def test_a_checkpoint(tmp_path):
    checkpoint = tf.train.Checkpoint(weights=tf.Variable(tf.zeros(10_000)))
    folder = CheckpointFolder(tmp_path, str(tmp_path), 3)
    folder.write(1, checkpoint.write)
    before = names(tmp_path)
    # Keras would mistake TensorFlow's own error for the end of the data.
    assert refused(8_192, folder.write, 2, checkpoint.write).startswith(f"{tmp_path}/")
    assert names(tmp_path) == before
    folder.write(2, checkpoint.write)
    assert folder.steps() == [2, 1]


@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "litert"])
def test_exporting(format, tiny_model, tmp_path, monkeypatch):
    def write(model, folder, *_, **options):
        np.save(folder / "weights.npy", np.zeros(10_000))

    monkeypatch.setattr(writing, "write_saved_model", write)
    monkeypatch.setattr(writing.towers, "write_towers", write)
    line = refused(8_192, tiny_model.export, tmp_path / "1", format)
    assert line.startswith(f"{tmp_path}/1: no space left")
    assert names(tmp_path) == []
    tiny_model.export(tmp_path / "1", format)
    assert list(checksums.read(checksums.list_of(tmp_path / "1"))) == ["weights.npy"]


def test_a_preset_stays_as_it_was(tiny_model, tmp_path):
    tiny_model.save_to_preset(tmp_path / "preset")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "preset").rglob("*.*")}
    for name in ("preset", "new"):
        with pytest.raises(NoSpaceError, match=f"{name}.*MiB needed"), small_files(8_192):
            tiny_model.save_to_preset(tmp_path / name)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "preset").rglob("*.*")} == before
    assert not (tmp_path / "new").exists()
