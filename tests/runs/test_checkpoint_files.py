"""Checkpoints in a folder: written completely or not at all, removed by age, or set aside."""

from pathlib import Path

import pytest
import tensorflow as tf

from align_keras.runs import checkpoint_files
from align_keras.runs.checkpoint_files import CheckpointFolder

ENDS = ("data-00000-of-00001", "index", "checksums.json")


def write(path, step, value=None):
    checkpoint = tf.train.Checkpoint(value=tf.Variable(float(value or step)))
    CheckpointFolder(path, str(path), max_to_keep=3).write(step, checkpoint.write)


def swept(path):
    """The values of the checkpoints that the next process finds, by step."""
    folder = CheckpointFolder(path, str(path), max_to_keep=3)
    folder.sweep()
    assert not any(folder.fault(step) for step in folder.steps())
    name = "value/.ATTRIBUTES/VARIABLE_VALUE"
    return {step: tf.train.load_variable(folder.prefix(step), name) for step in folder.steps()}


def names_of(*steps):
    return {"checkpoint", *(f"ckpt-{step}.{end}" for step in steps for end in ENDS)}


def test_the_newest_are_kept_and_others_set_aside_for_good(tmp_path):
    for step in (1, 2, 30):
        write(tmp_path, step)
    folder = CheckpointFolder(tmp_path, str(tmp_path), max_to_keep=3)
    asides = [folder.set_aside(30)]
    write(tmp_path, 30)
    asides.append(folder.set_aside(30))
    assert [aside.name for aside in asides] == ["ckpt-30.aside", "ckpt-30.aside-2"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-2")
    for step in (4, 5, 6, 7):
        write(tmp_path, step)
    assert swept(tmp_path) == {7: 7, 6: 6, 5: 5}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == names_of(5, 6, 7)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-7")
    for aside in asides:
        assert {path.name for path in aside.iterdir()} == {f"ckpt-30.{end}" for end in ENDS}


def kill(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "steps"),
    [
        (checkpoint_files.checksums, "write", (1, 2, 3)),
        (CheckpointFolder, "_move_finished", (1, 2, 3, 4)),
        (CheckpointFolder, "_write_state", (1, 2, 3, 4)),
        (CheckpointFolder, "_remove", (1, 2, 3, 4)),
    ],
)
def test_a_write_that_was_cut_off_counts_wholly_or_not_at_all(
    owner, name, steps, tmp_path, monkeypatch
):
    for step in (1, 2, 3):
        write(tmp_path, step)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, name, kill)
        write(tmp_path, 4)
    (tmp_path / "ckpt-5_temp").mkdir()  # TensorFlow left such a folder in earlier versions
    assert swept(tmp_path) == {step: step for step in steps}
    assert {path.name for path in tmp_path.iterdir()} == names_of(*steps)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_the_rest_of_a_finished_write_is_moved(moved, tmp_path, monkeypatch):
    """This includes a write that replaces a checkpoint of the same step."""
    write(tmp_path, 3, value=1)
    calls = []

    def replace_some(path, target):
        if path.name in names_of(3) - {"checkpoint"}:
            calls.append(target)
            if len(calls) > moved:
                raise KeyboardInterrupt
        return replace(path, target)

    replace = Path.replace
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", replace_some)
        write(tmp_path, 3, value=2)
    assert swept(tmp_path) == {3: 2}
    assert {path.name for path in tmp_path.iterdir()} == names_of(3)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    write(tmp_path, 3)

    def fail(prefix):
        Path(f"{prefix}.index").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        CheckpointFolder(tmp_path, str(tmp_path), 3).write(4, fail)
    write(tmp_path, 4)
    assert swept(tmp_path) == {4: 4, 3: 3}
