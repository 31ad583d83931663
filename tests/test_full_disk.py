"""A full disk, as each library says it, is one error that names the file."""

import contextlib
import errno
import gc
import os
import resource
import sys

import duckdb
import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from align_keras import files, full_disk
from align_keras.errors import NoSpaceError

_BYTES = 300_000


@contextlib.contextmanager
def small_files(limit=1 << 16):
    """Files of this process may not become larger; the system says so as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_table(path):
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE t AS SELECT random() FROM range(100000)")


def write_records(path):
    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(bytes(_BYTES))


def write_checkpoint(path):
    tf.train.Checkpoint(v=tf.Variable(tf.zeros(_BYTES))).write(str(path))


def write_saved_model(path):
    module = tf.Module()
    module.v = tf.Variable(tf.zeros(_BYTES))
    tf.saved_model.save(module, str(path))


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.random.default_rng(0).random(_BYTES)


def write_weights(path):
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1_000)])
    model.save_weights(str(path))


WRITERS = {
    "open": lambda path: path.write_bytes(bytes(_BYTES)),
    "numpy.save": lambda path: np.save(path, np.zeros(_BYTES)),
    "tofile": lambda path: np.zeros(_BYTES).tofile(path),
    "safetensors": lambda path: safetensors.numpy.save_file({"a": np.zeros(_BYTES)}, path),
    "h5py": write_hdf5,
    "Keras": write_weights,
    "gfile": lambda path: tf.io.gfile.GFile(str(path), "w").write("x" * _BYTES),
    "TFRecordWriter": write_records,
    "Checkpoint": write_checkpoint,
    "SavedModel": write_saved_model,
    "DuckDB": write_table,
}


@pytest.fixture
def quiet(monkeypatch, request):
    """As in a command: h5py's complaints while it frees a file are not printed."""
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    full_disk.ignore_unraisable()
    yield
    if request.node.callspec.params["library"] in ("h5py", "Keras"):
        gc.collect()
    assert not shown


@pytest.mark.parametrize("library", WRITERS)
def test_every_writer_is_told_in_one_way(library, tmp_path, quiet):
    path = tmp_path / ("file.weights.h5" if library == "Keras" else "file")
    with pytest.raises(NoSpaceError) as raised, small_files(), full_disk.told(path):
        WRITERS[library](path)
    line = str(raised.value)
    assert line.startswith(str(path))
    assert line.endswith("; make room, then run the same command again")
    assert "\n" not in line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_space_that_is_left_is_said(number, tmp_path):
    cause = OSError(number, os.strerror(number), str(tmp_path / "below" / "file"))
    error = RuntimeError("something else failed")
    error.__cause__ = cause
    found = full_disk.as_no_space(error)
    assert found.problem.startswith("no space left in" if number == errno.EDQUOT else "no space")
    assert found.problem.endswith(" needed)")
    assert found.place.file == str(tmp_path / "below" / "file")


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(PermissionError), full_disk.told(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    assert full_disk.as_no_space(ValueError("3 requested")) is None
    first = NoSpaceError("first")
    with pytest.raises(NoSpaceError) as raised, full_disk.told(tmp_path):
        raise first
    assert raised.value is first


def test_nothing_half_written_stays(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(NoSpaceError, match=str(path)), small_files():
        files.write_whole(path, "x" * _BYTES)
    assert [(found, found.read_text()) for found in tmp_path.iterdir()] == [(path, "old")]
    with (
        pytest.raises(NoSpaceError, match=f"{tmp_path}/folder"),
        small_files(),
        files.whole_folder(tmp_path / "folder") as folder,
    ):
        np.save(folder / "numbers.npy", np.zeros(_BYTES))
    assert list(tmp_path.iterdir()) == [path]
