"""Remote checkpoints are complete if they have their checksum file, which is written last."""

import itertools

import pytest
import tensorflow as tf

from align_keras import uploads
from align_keras.remote_path import RemotePath
from align_keras.runs import remote_checkpoints
from align_keras.runs.remote_checkpoints import RemoteCheckpointFolder

ENDS = ("data-00000-of-00001", "index", "checksums.json")
NUMBERS = itertools.count()


@pytest.fixture
def path():
    return RemotePath(f"ram://checkpoints/{next(NUMBERS)}")


def write(path, step, value=None):
    checkpoint = tf.train.Checkpoint(value=tf.Variable(float(value or step)))
    RemoteCheckpointFolder(path, max_to_keep=3).write(step, checkpoint.write)


def swept(path):
    """The values of the checkpoints that the next process finds, by step."""
    folder = RemoteCheckpointFolder(path, max_to_keep=3)
    folder.sweep()
    assert not any(folder.fault(step) for step in folder.steps())
    return {step: value_of(folder.prefix(step)) for step in folder.steps()}


def value_of(prefix):
    found = tf.Variable(0.0)
    tf.train.Checkpoint(value=found).read(prefix).assert_consumed()
    return found.numpy()


def names_of(*steps):
    return {"checkpoint", *(f"ckpt-{step}.{end}" for step in steps for end in ENDS)}


def test_the_newest_are_kept_and_others_set_aside_for_good(path):
    for step in (1, 2, 30):
        write(path, step)
    folder = RemoteCheckpointFolder(path, max_to_keep=3)
    aside = folder.set_aside(30)
    for step in (4, 5, 6):
        write(path, step)
    assert swept(path) == {6: 6, 5: 5, 4: 4}
    assert {own.name for own in path.iterdir()} == names_of(4, 5, 6) | {"ckpt-30.aside"}
    assert {own.name for own in aside.iterdir()} == {f"ckpt-30.{end}" for end in ENDS}
    assert tf.train.latest_checkpoint(str(path)) == f"{path}/ckpt-6"


def test_a_checkpoint_without_its_list_is_none_and_goes(path, monkeypatch):
    """The process is killed before the first, second or last file of four checkpoints."""
    write(path, 1)
    put = uploads.put
    for killed_at in range(3):
        calls = itertools.count()

        def be_killed(local, target, calls=calls, killed_at=killed_at):
            if next(calls) == killed_at:
                raise KeyboardInterrupt
            put(local, target)

        monkeypatch.setattr(uploads, "put", be_killed)
        with pytest.raises(KeyboardInterrupt):
            write(path, 2)
        monkeypatch.setattr(uploads, "put", put)
        names = {own.name for own in path.iterdir()}
        assert len(names - names_of(1)) == killed_at
        folder = RemoteCheckpointFolder(path, max_to_keep=3)
        assert folder.steps() == [1]
        assert swept(path) == {1: 1}
        assert {own.name for own in path.iterdir()} == names_of(1)


def test_one_that_is_replaced_is_the_old_or_none_or_the_new(path, monkeypatch):
    write(path, 3, value=1)
    monkeypatch.setattr(remote_checkpoints.checksums, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        write(path, 3, value=2)
    monkeypatch.undo()
    assert swept(path) == {}
    write(path, 3, value=2)
    assert swept(path) == {3: 2}


def kill(*_):
    raise KeyboardInterrupt


def test_a_removal_that_was_cut_off_leaves_none_that_counts(path, monkeypatch):
    for step in (1, 2, 3):
        write(path, step)
    unlink, removed = RemotePath.unlink, []

    def remove_one(self, missing_ok=False):
        if removed and "ckpt-1" in self.name:
            raise KeyboardInterrupt
        if self.exists():
            removed.append(self.name)
        unlink(self, missing_ok)

    monkeypatch.setattr(RemotePath, "unlink", remove_one)
    with pytest.raises(KeyboardInterrupt):
        write(path, 4)
    monkeypatch.undo()
    assert removed == ["ckpt-1.checksums.json"]
    assert swept(path) == {2: 2, 3: 3, 4: 4}
    assert {own.name for own in path.iterdir()} == names_of(2, 3, 4)


@pytest.mark.parametrize("end", ENDS)
def test_damage_is_found(path, end):
    write(path, 1)
    file = path / f"ckpt-1.{end}"
    file.write_bytes(file.read_bytes()[:-9])
    assert file.name in RemoteCheckpointFolder(path, max_to_keep=3).fault(1)
