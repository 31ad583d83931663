"""Incomplete, changed and deleted checkpoints: the step at which a run resumes, and files kept."""

import shutil
import threading

import keras
import pytest
import tensorflow as tf

from align_keras import Lamb, distribution
from align_keras.errors import InputError
from align_keras.runs.checkpoints import RunCheckpoints

DATA, SUMS = "data-00000-of-00001", "checksums.json"


def build_model():
    model = keras.Sequential([keras.layers.Dense(3)])
    model.build((None, 5))
    model.compile(Lamb(0.01))
    return model


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Checkpoints of steps 1, 2 and 3, the best of step 2; the weights equal the step."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    checkpoints = RunCheckpoints(folder, model)
    for step in (1, 2, 3):
        checkpoints.count_steps(step)
        model.layers[0].kernel.assign(tf.fill((5, 3), float(step)))
        checkpoints.save()
        if step == 2:
            checkpoints.save_if_best(0.5)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoints")


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def take(newest, source, target):
    """Replaces the files of one checkpoint by another's."""
    for path in newest.glob(f"{source}.*"):
        shutil.copy(path, newest / path.name.replace(source, target))


def as_folder(path):
    path.unlink()
    path.mkdir()


def of_an_earlier_version(newest, damage=lambda newest: None):
    for path in newest.glob(f"*.{SUMS}"):
        path.unlink()
    damage(newest)


#: Damage to ``newest/``, and the step at which the run then resumes.
CASES = {
    "nothing": (lambda newest: None, 3),
    "data cut": (lambda newest: cut(newest / f"ckpt-3.{DATA}"), 2),
    "data emptied": (lambda newest: (newest / f"ckpt-3.{DATA}").write_bytes(b""), 2),
    "data changed": (lambda newest: flip(newest / f"ckpt-3.{DATA}"), 2),
    "data of another": (
        lambda newest: shutil.copy(newest / f"ckpt-1.{DATA}", newest / f"ckpt-3.{DATA}"),
        2,
    ),
    "data deleted": (lambda newest: (newest / f"ckpt-3.{DATA}").unlink(), 2),
    "data a folder": (lambda newest: as_folder(newest / f"ckpt-3.{DATA}"), 2),
    "index cut": (lambda newest: cut(newest / "ckpt-3.index"), 2),
    "index changed": (lambda newest: flip(newest / "ckpt-3.index", 0.99), 2),
    "index deleted": (lambda newest: (newest / "ckpt-3.index").unlink(), 2),
    "list emptied": (lambda newest: (newest / f"ckpt-3.{SUMS}").write_text(""), 2),
    "list of something else": (lambda newest: (newest / f"ckpt-3.{SUMS}").write_text("{}"), 2),
    "list alone": (
        lambda newest: [(newest / f"ckpt-3.{end}").unlink() for end in (DATA, "index")],
        2,
    ),
    "list deleted": (lambda newest: (newest / f"ckpt-3.{SUMS}").unlink(), 3),
    "an older one by its name": (lambda newest: take(newest, "ckpt-1", "ckpt-3"), 2),
    "state deleted": (lambda newest: (newest / "checkpoint").unlink(), 3),
    "state damaged": (lambda newest: (newest / "checkpoint").write_text("\0damaged"), 3),
    # The run resumes at the best checkpoint, which is of step 2.
    "two damaged": (lambda newest: [cut(newest / f"ckpt-{step}.index") for step in (2, 3)], 2),
    "all deleted": (shutil.rmtree, 2),
    "earlier version": (of_an_earlier_version, 3),
    "earlier version, data cut": (
        lambda newest: of_an_earlier_version(newest, CASES["data cut"][0]),
        2,
    ),
    "earlier version, data changed": (
        lambda newest: of_an_earlier_version(newest, CASES["data changed"][0]),
        2,
    ),
    "earlier version, index cut": (
        lambda newest: of_an_earlier_version(newest, CASES["index cut"][0]),
        2,
    ),
    "earlier version, index deleted": (
        lambda newest: of_an_earlier_version(newest, CASES["index deleted"][0]),
        2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumes_at_the_newest_sound_checkpoint(case, model, copy, capsys):
    damage, step = CASES[case]
    damage(copy / "newest")
    damaged = {path.name for path in copy.glob("newest/ckpt-3.*")} if step < 3 else set()
    assert RunCheckpoints(copy, model).restore() == step
    assert (model.layers[0].kernel.numpy() == step).all()
    assert {path.name for path in copy.glob("newest/ckpt-3.aside/*")} == damaged
    printed = capsys.readouterr().out
    if damaged:
        assert f"{copy / 'newest' / 'ckpt-3'} is damaged (" in printed
        assert f"it is kept in {copy / 'newest' / 'ckpt-3.aside'}\n" in printed
    else:
        assert printed == ""


def test_a_run_that_resumes_at_its_best_has_it_among_the_newest(model, copy):
    """As after a kill between the two saves."""
    for step in (2, 3):
        for path in (copy / "newest").glob(f"ckpt-{step}.*"):
            path.unlink()
    assert RunCheckpoints(copy, model).restore() == 2
    shutil.rmtree(copy / "best")
    assert RunCheckpoints(copy, model).restore() == 2
    assert float(model.layers[0].kernel.numpy()[0, 0]) == 2.0


def test_a_damaged_best_is_kept_aside_and_the_next_is_the_best(model, copy, capsys):
    flip(copy / "best" / f"ckpt-2.{DATA}")
    checkpoints = RunCheckpoints(copy, model)
    assert checkpoints.restore() == 3
    assert f"{copy / 'best' / 'ckpt-2'} is damaged (" in capsys.readouterr().out
    assert len(list((copy / "best" / "ckpt-2.aside").iterdir())) == 3
    assert checkpoints.save_if_best(0.1)
    assert not checkpoints.save_if_best(0.1)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(model, copy):
    for path in copy.glob("*/*.index"):
        cut(path)
    before = sorted(copy.rglob("*"))
    with pytest.raises(InputError, match="no checkpoint is intact: newest/ckpt-3 ") as raised:
        RunCheckpoints(copy, model).restore()
    assert "best/ckpt-2" in str(raised.value)
    assert raised.value.place.file == str(copy)
    assert "\n" not in str(raised.value)
    assert sorted(copy.rglob("*")) == before


def test_a_checkpoint_of_another_step_by_a_wrong_name_is_refused(model, copy):
    """Earlier versions wrote no checksums, which would have shown the mistake."""
    of_an_earlier_version(copy / "newest")
    take(copy / "newest", "ckpt-1", "ckpt-3")
    with pytest.raises(InputError, match="it is a checkpoint of step 1, renamed") as raised:
        RunCheckpoints(copy, model).restore()
    assert raised.value.place.file == str(copy / "newest" / "ckpt-3")


def restore_as_workers(folders, monkeypatch):
    """The results or errors of several workers, which wait for each other.

    Each has its own model: TensorFlow cannot restore one model in two threads at a time.
    """
    models = [build_model() for _ in folders]
    barrier, proposed, results = threading.Barrier(len(folders)), {}, {}

    def gather(worker, number):
        proposed[worker] = number
        barrier.wait(30)
        numbers = [proposed[own] for own in range(len(folders))]
        barrier.wait(30)
        return numbers

    def restore(worker):
        try:
            results[worker] = RunCheckpoints(folders[worker], models[worker]).restore(worker)
        except InputError as error:
            results[worker] = error

    monkeypatch.setattr(distribution, "gather_from_workers", gather)
    threads = [threading.Thread(target=restore, args=(own,)) for own in range(len(folders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[worker] for worker in range(len(folders))]


def keep(folder, *steps):
    shutil.rmtree(folder / "best")
    for path in (folder / "newest").glob("ckpt-*"):
        if int(path.name[5]) not in steps:
            path.unlink()


#: The steps of each worker's checkpoints, and the step at which all resume; None for an error.
WORKERS = [
    (((1, 2, 3), (1, 2, 3)), 3),
    (((1, 2, 3), (1, 2)), 2),
    (((1, 3), (1, 2), (1, 2, 3)), 1),
    (((), ()), 0),
    (((3,), (1, 2)), None),
    (((1, 2, 3), ()), None),
    (((3,), ()), 0),  # killed while the first checkpoints were written
]


@pytest.mark.parametrize(("steps", "step"), WORKERS)
def test_workers_resume_at_the_newest_step_that_all_have(
    steps, step, whole, tmp_path, monkeypatch, capsys
):
    folders = [shutil.copytree(whole, tmp_path / str(own)) for own in range(len(steps))]
    for folder, own in zip(folders, steps, strict=True):
        keep(folder, *own)
    results = restore_as_workers(folders, monkeypatch)
    if step is None:
        newest = ", ".join(str(max(own)) if own else "none" for own in steps)
        for folder, result in zip(folders, results, strict=True):
            assert "no step has an intact checkpoint on every worker" in str(result)
            assert f"by worker, the newest steps are {newest}; copy checkpoints/" in str(result)
            assert result.place.file == str(folder)
        return
    assert results == [step] * len(steps)
    printed = capsys.readouterr().out
    for folder, own in zip(folders, steps, strict=True):
        for later in (number for number in own if number > step):
            aside = folder / "newest" / f"ckpt-{later}.aside"
            assert len(list(aside.iterdir())) == 3
            newer = "is newer than the checkpoints of other workers"
            assert f"{newer}; it is kept in {aside}\n" in printed


def test_a_worker_whose_checkpoints_are_all_damaged_ends_all(whole, tmp_path, monkeypatch):
    folders = [shutil.copytree(whole, tmp_path / str(own)) for own in range(2)]
    for path in folders[1].glob("*/*.index"):
        cut(path)
    sound, damaged = map(str, restore_as_workers(folders, monkeypatch))
    assert "the newest steps are 3, none; copy checkpoints/ and skipped.json of one worker" in sound
    assert "the newest steps are 3, none; damaged here: newest/ckpt-3 (ckpt-3.index: " in damaged
