import errno
import fcntl
import os

import pytest

from align_keras import locks


def test_a_lock_names_the_process_that_holds_it(tmp_path):
    path = tmp_path / "lock"
    with locks.locked(path):
        with pytest.raises(locks.LockedError) as raised, locks.locked(path):
            pass
        assert f", process {os.getpid()} on " in raised.value.remedy
        path.write_text("[")
        with pytest.raises(locks.LockedError) as raised, locks.locked(path):
            pass
        assert raised.value.remedy == "wait for it to end"
    assert not path.exists()


def test_the_file_of_a_dead_process_is_no_obstacle(tmp_path):
    path = tmp_path / "lock"
    path.write_text('{"command": "pretrain.py", "process": 1, "host": "gone"}')
    with locks.locked(path):
        assert str(os.getpid()) in path.read_text()


def test_a_file_that_its_holder_removes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock

    def remove_first(*arguments):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with (
        locks.locked(path),
        pytest.raises(locks.LockedError),
        locks.locked(path),
    ):
        pass


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with locks.locked(tmp_path / "lock"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path} is on a file system without locks (No locks available): ")
