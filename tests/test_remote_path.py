"""Paths on TensorFlow's file systems; ``ram://`` is one in the memory of a process."""

import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tensorflow as tf

from align_keras import checksums, files, paths
from align_keras.errors import InputError, UnreachableError, concerning
from align_keras.remote_files import check_file_system
from align_keras.remote_path import RemotePath

ROOM = RemotePath("ram://paths/room")


def test_names_are_those_of_pathlib():
    for text in ("a/b/c.tar.gz", "a/.hidden", "a/b.", "a/b", "a//b/./c/"):
        remote, local = RemotePath(f"gs://bucket/{text}"), Path("/bucket") / text
        for name in ("name", "suffix", "stem"):
            assert getattr(remote, name) == getattr(local, name), (text, name)
        assert str(remote) == f"gs:/{local}"
        assert str(remote.parent) == f"gs:/{local.parent}"
        assert str(remote.with_name("x")) == f"gs:/{local.with_name('x')}"
    bucket = RemotePath("GS://bucket/")
    assert str(bucket) == "gs://bucket"
    assert bucket.parent == bucket
    assert (bucket / "a" / "" / "b").parents == [bucket / "a", bucket]


def test_what_would_make_a_local_folder_of_an_address_refuses_it():
    for function in (Path, open, os.listdir, os.path.isdir, os.fspath):
        with pytest.raises(TypeError):
            function(ROOM)


def test_an_address_is_of_its_own_kind(tmp_path):
    assert paths.path_of("gs://b/x") == RemotePath("gs://b/x")
    assert paths.path_of(ROOM) is ROOM
    assert paths.path_of("a/b") == Path("a/b")
    assert paths.path_of(f"file://{tmp_path}") == tmp_path
    for address in ("hf://a/b", "https://a/b"):
        with pytest.raises(InputError, match="is not supported here"):
            paths.path_of(address)
    assert not paths.is_remote("hf://a/b")
    assert paths.is_remote("hdfs://a/b")


def test_files_are_written_read_listed_and_removed():
    path = ROOM / "a" / "one.txt"
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    assert not path.exists()
    path.parent.mkdir(parents=True)
    for text in ("a longer text", "short", "äöü"):
        files.write_whole(path, text)  # replaces the earlier text
        assert path.read_text() == text
    assert path.stat().st_size == 6
    assert path.is_file() and not path.is_dir()
    assert path.parent.is_dir() and not path.parent.is_file()
    (ROOM / "a" / "two").touch()
    assert [own.name for own in path.parent.iterdir()] == ["one.txt", "two"]
    with pytest.raises(OSError, match="not empty"):
        path.parent.rmdir()
    path.replace(ROOM / "a" / "three")
    with pytest.raises(FileNotFoundError):
        path.unlink()
    path.unlink(missing_ok=True)
    for own in path.parent.iterdir():
        own.unlink()
    path.parent.rmdir()
    assert not path.parent.exists()


def test_a_file_is_one_for_every_reader():
    path = ROOM / "lines.csv"
    path.write_text("\ufeffa,b\r\nä,2\r\n" * 3)
    with path.open("rb") as file:
        assert file.read(3) == b"\xef\xbb\xbf"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b",2\r\n"
        file.seek(3)
        assert file.readline() == b"a,b\r\n"
    with files.opened(path, encoding="utf-8-sig", newline="") as file:
        assert next(file) == "a,b\r\n"
    packed = ROOM / "lines.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with files.opened(packed, encoding="utf-8") as file:
        assert file.read() == path.read_bytes().decode().replace("\r\n", "\n")
    files.write_whole(ROOM / "a.zip", write_zip)
    with (ROOM / "a.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("b") == b"c" * 10_000
    with pytest.raises(ValueError, match="written as a whole"):
        path.open("a")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b", "c" * 10_000)


def test_an_unknown_file_system_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(InputError, match="^gss://b/x: TensorFlow has no file system gss://, only"):
        RemotePath("gss://b/x").exists()
    with pytest.raises(InputError, match="only file, gs, ram; correct it, or pip install"):
        check_file_system("gss://b/x")


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.PermissionDeniedError(None, None, "no access\nto it"),
        tf.errors.UnavailableError(None, None, "no network"),
    ],
)
def test_what_cannot_be_reached_is_one_line_and_no_damage(error, monkeypatch):
    def fail(address):
        if address.endswith("/sound"):
            raise error
        return stat(address)

    path, stat = ROOM / "sound", tf.io.gfile.stat
    path.write_text("sound")
    checksums.write_folder(ROOM, ["sound"])
    line = f"workdir: {path}: {error.message.splitlines()[0]}"
    monkeypatch.setattr(tf.io.gfile, "stat", fail)
    with pytest.raises(OSError), concerning("workdir"):
        path.open()
    with pytest.raises(UnreachableError, match=f"^{line}$"), concerning("workdir"):
        list(checksums.faults(checksums.list_of(ROOM)))


def test_a_folder_is_whole_or_lacks_what_its_list_names(monkeypatch):
    target = ROOM / "preset"

    def write(text):
        with files.whole_folder(target, replace=True) as folder:
            (folder / "deep").mkdir()
            for name in ("config.json", "checksums.json", "deep/a", text):
                (folder / name).write_text(text)

    write("1")
    copied, copy = [], RemotePath.copy_from
    monkeypatch.setattr(
        RemotePath, "copy_from", lambda self, source: (copied.append(self.name), copy(self, source))
    )
    write("2")
    assert copied == ["checksums.json", "2", "a", "config.json"]
    assert not (target / "1").exists()
    assert (target / "deep" / "a").read_text() == "2"
    with pytest.raises(RuntimeError), files.whole_folder(target, replace=True) as folder:
        (folder / "config.json").write_text("3")
        raise RuntimeError
    assert (target / "config.json").read_text() == "2"


def test_importing_paths_loads_no_tensorflow():
    code = (
        "import sys; from align_keras import paths; paths.path_of('gs://b/x').parent / 'y'; "
        "print('tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "ALIGN_KERAS_IMPORT": "lazy"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode() == f"{json.dumps(False).capitalize()}\n", done.stderr
