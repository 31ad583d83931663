"""Every library's error for a full disk becomes the same error, which names the file."""

import errno
import os
import sys
import types

import duckdb
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from small_files import small_files

from align_keras import files, full_disk
from align_keras.errors import NoSpaceError

_BYTES = 300_000


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


WRITERS = {
    "open": lambda path: path.write_bytes(bytes(_BYTES)),
    "numpy.save": lambda path: np.save(path, np.zeros(_BYTES)),
    "tofile": lambda path: np.zeros(_BYTES).tofile(path),
    "safetensors": lambda path: safetensors.numpy.save_file({"a": np.zeros(_BYTES)}, path),
    "gfile": lambda path: tf.io.gfile.GFile(str(path), "w").write("x" * _BYTES),
    "TFRecordWriter": write_records,
    "Checkpoint": write_checkpoint,
    "SavedModel": write_saved_model,
    "DuckDB": write_table,
}


@pytest.mark.parametrize("library", WRITERS)
def test_every_writer_is_reported_in_one_way(library, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(NoSpaceError) as raised, small_files(), full_disk.reported(path):
        WRITERS[library](path)
    line = str(raised.value)
    assert line.startswith(str(path))
    assert line.endswith("; free some space, then run the same command again")
    assert "\n" not in line


def hdf5s(error):
    """An error like h5py's; the real one may end the process."""
    return error(
        "[Errno 28] Can't synchronously write data (file write failed: time = Thu Nov 26 2026\n, "
        "filename = '/data/model.weights.h5', file descriptor = 3, errno = 28, error message = "
        "'No space left on device', buf = 0x7f3a2c57f810, total write size = 5904896)"
    )


def test_hdf5s_many_lines_are_one():
    line = str(full_disk.as_no_space(hdf5s(OSError)))
    assert line.startswith("/data/model.weights.h5: no space left on its disk (more than ")


def test_what_hdf5_prints_while_it_frees_a_file_is_hidden(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    full_disk.ignore_unraisable()
    for error in (hdf5s(RuntimeError), RuntimeError("another")):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert [str(found.exc_value) for found in shown] == ["another"]


def test_room_is_looked_for_before_hdf5_writes(tmp_path):
    full_disk.check_room(tmp_path, _BYTES)
    with small_files(), pytest.raises(NoSpaceError, match=r"\(0.286 MiB needed, .* free\)"):
        full_disk.check_room(tmp_path, _BYTES)
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(PermissionError), full_disk.reported(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    assert full_disk.as_no_space(ValueError("3 requested")) is None
    first = NoSpaceError("first")
    with pytest.raises(NoSpaceError) as raised, full_disk.reported(tmp_path):
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
