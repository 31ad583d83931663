"""Leases, which keep a second run out of a directory on a file system without locks."""

import contextlib
import json
import os
import socket
import time
from types import SimpleNamespace

import pytest

from align_keras import leases, locks, processes
from align_keras.errors import InputError
from align_keras.remote_path import RemotePath

FOLDER = RemotePath("ram://leases/run")
LEASE = FOLDER / "lock"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.01)
    monkeypatch.setattr(leases, "LEFT_AFTER", 0.1)
    yield
    LEASE.unlink(missing_ok=True)


def write(**changes):
    lease = {**processes.own_name(), "place": "0123abcd", "token": "another", "renewed": 0}
    LEASE.write_text(json.dumps({**lease, **changes}))


def read_lease():
    """Reads the lease; unlike an object store, ram:// does not replace a file in one step."""
    end = time.monotonic() + 5
    while True:
        assert time.monotonic() < end
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads(LEASE.read_bytes())


def test_a_lease_is_renewed_and_removed_and_refuses_its_own_process():
    with locks.locked(LEASE):
        with pytest.raises(locks.LockedError) as raised, locks.locked(LEASE):
            pass
        assert f", process {os.getpid()} on {socket.gethostname()}" in raised.value.remedy
        end = time.monotonic() + 5
        while read_lease()["renewed"] < 2:
            assert time.monotonic() < end
        leases.check(FOLDER / "checkpoints" / "newest")
    assert not LEASE.exists()


def test_a_lease_that_changes_is_anothers(monkeypatch):
    write()
    own_time = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: write(renewed=1, host="there")
    )
    monkeypatch.setattr(leases, "time", own_time)
    with pytest.raises(locks.LockedError, match="on there"), locks.locked(LEASE):
        pass
    assert json.loads(LEASE.read_text())["token"] == "another"


def test_a_lease_that_stays_was_left_behind(capsys):
    write(host="gone")
    with locks.locked(LEASE):
        assert read_lease()["token"] != "another"
    assert "on gone: checking for 0 s whether it still is" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[", "[]", "{}"])
def test_a_damaged_lease_is_left_behind(content):
    LEASE.write_text(content)
    with locks.locked(LEASE):
        pass
    assert not LEASE.exists()


def test_the_lease_of_a_dead_process_of_this_machine_takes_no_wait(monkeypatch):
    monkeypatch.setattr(leases, "LEFT_AFTER", 1e9)
    write(place=processes.place(), process=2**22 + 1)
    with locks.locked(LEASE):
        pass


def test_who_loses_the_lease_writes_no_more(monkeypatch):
    monkeypatch.setattr(leases, "RENEWED_EVERY", 1e9)
    with locks.locked(LEASE):
        write(command="pretrain.py", process=7, host="other")
        line = "^ram://leases/run: another run has begun to use it: pretrain.py, process 7 on other"
        with pytest.raises(InputError, match=line):
            leases.check(FOLDER / "checkpoints")
        leases.check(RemotePath("ram://leases/another"))
    assert LEASE.exists()  # the other run's lease stays


def test_a_lease_that_is_being_written_is_not_anothers(monkeypatch):
    """The renewing thread may write during ``check`` if a file is not replaced in one step."""
    monkeypatch.setattr(leases, "RENEWED_EVERY", 1e9)
    with locks.locked(LEASE):
        for content in ("", '{"command"'):
            LEASE.write_text(content)
            leases.check(FOLDER)
