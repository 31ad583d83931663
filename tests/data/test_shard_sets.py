"""A set of shards is written completely or not at all, and never changes another set."""

import json
import os

import pytest

from align_keras.data import shard_sets
from align_keras.errors import InputError

#: Files of other sets, or of no set; none of them belongs to the set ``cc``.
OTHERS = (
    "cc-12m-00000.tfrecord",
    "cc-2-00000.tfrecord",
    "cc-12-00000_stats.json",
    "cc-202401.tfrecord",
    "cc-0000.tfrecord",
    "cc-00000.tfrecord.gz",
    "cc-00000.tfrecord.partial",
    "acc-00000.tfrecord",
    "cc-kept-best.jsonl",
    "cc-12m-kept.jsonl",
)


def write(output, *ends):
    with shard_sets.unfinished(output) as work:
        for end in ends:
            (work.folder / f"{os.path.basename(output)}-{end}").write_text("new")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_shards_of_other_sets_are_neither_found_nor_touched(tmp_path):
    for name in OTHERS:
        (tmp_path / name).write_text("old")
    output = str(tmp_path / "cc")
    assert shard_sets.find_set(output) == []
    (tmp_path / "cc.unfinished").mkdir()  # left by a run that was killed at once
    write(output, "00000.tfrecord", "00000_stats.json", "report.json")
    assert shard_sets.find_set(output) == [f"{output}-00000.tfrecord"]
    assert all((tmp_path / name).read_text() == "old" for name in OTHERS)
    with pytest.raises(ValueError, match="broken"), shard_sets.unfinished(tmp_path / "acc-1"):
        raise ValueError("broken")
    assert set(names(tmp_path)) - set(OTHERS) == {
        "cc-00000.tfrecord",
        "cc-00000_stats.json",
        "cc-checksums.json",
        "cc-report.json",
    }


@pytest.mark.parametrize("name", ["cc", "cc [v2]", "c*", "c,c", "it's"])
@pytest.mark.parametrize("end", ["00000.tfrecord", "kept.jsonl", "kept-00000-of-00002.jsonl"])
def test_a_set_that_is_there_is_refused(end, name, tmp_path):
    output = str(tmp_path / name)
    (tmp_path / f"{name}-{end}").write_text("old")
    with pytest.raises(InputError, match="already exists; remove it or choose") as raised:
        write(output, end)
    assert raised.value.setting == "output"
    assert names(tmp_path) == [f"{name}-{end}"]
    assert (tmp_path / f"{name}-{end}").read_text() == "old"


def test_what_a_killed_run_moved_is_taken_back_and_nothing_else(tmp_path, monkeypatch):
    output = str(tmp_path / "cc")
    ends = [f"{number:05d}.tfrecord" for number in range(4)]
    monkeypatch.setattr(shard_sets, "_take_back", lambda *_: None)
    moved = []

    def replace(path, target):
        moved.append(target)
        os.replace(path, target)
        if len(moved) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shard_sets.Path, "replace", replace)
        patch.setattr(shard_sets.files, "empty", lambda _: None)
        patch.setattr(shard_sets.files, "write_whole", lambda path, text: path.write_text(text))
        with pytest.raises(KeyboardInterrupt):
            write(output, *ends)
    (tmp_path / "cc.unfinished" / "lock").touch()
    monkeypatch.undo()
    assert moved.pop(0).name == "cc-checksums.json"
    assert shard_sets.find_set(output) == sorted(map(str, moved))
    # Meanwhile another program writes a shard of the same name.
    kept, gone = moved
    kept.unlink()
    kept.write_text("somebody's")
    with pytest.raises(InputError, match=f"{kept.name} already exists"):
        write(output, *ends)
    assert shard_sets.find_set(output) == [str(kept)]
    assert kept.read_text() == "somebody's"
    assert not gone.exists()
    kept.unlink()
    write(output, *ends)
    assert names(tmp_path) == [f"cc-{end}" for end in [*ends, "checksums.json"]]


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_check_before_the_work_removes_what_a_killed_run_left(is_complete, tmp_path):
    output = str(tmp_path / "cc")
    write(output, "00000.tfrecord", "report.json")
    work = tmp_path / "cc.unfinished"
    work.mkdir()
    for name in ("lock", "records-00"):
        (work / name).write_text("left")
    if is_complete:
        with pytest.raises(InputError, match="cc-00000.tfrecord already exists"):
            shard_sets.check_can_begin(output)
        assert "cc-00000.tfrecord" in names(tmp_path)
    else:  # killed during the move: each file that moved is on a list
        states = {name: shard_sets._state(tmp_path / name) for name in names(tmp_path)}
        (work / shard_sets._JOURNAL).write_text(json.dumps(states))
        shard_sets.check_can_begin(output)
        assert names(tmp_path) == []
    assert not work.exists()


def test_only_a_fault_of_the_output_is_blamed_on_it(tmp_path):
    with pytest.raises(InputError) as raised, shard_sets.unfinished(tmp_path / "cc"):
        raise InputError("the table is damaged")
    assert not raised.value.setting
    with (
        pytest.raises(InputError, match="another run is writing .*/cc; wait for") as raised,
        shard_sets.unfinished(tmp_path / "cc"),
        shard_sets.unfinished(tmp_path / "cc"),
    ):
        pass
    assert raised.value.setting == "output"
    assert names(tmp_path) == []


def test_somebodys_folder_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "cc.unfinished").mkdir()
    (tmp_path / "cc.unfinished" / "thesis.txt").write_text("old")
    with pytest.raises(
        InputError, match=r"holds thesis.txt, which this command did not write; move it away"
    ):
        write(tmp_path / "cc", "00000.tfrecord")
    assert (tmp_path / "cc.unfinished" / "thesis.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("DIR/", "DIR/ ends in a slash, .*; give a path such as DIR/train"),
        ("DIR/.hidden", "shards called .hidden-00000.tfrecord would be hidden"),
        ("DIR/..", "would be hidden"),
    ],
)
def test_shards_need_a_name(output, line):
    with pytest.raises(InputError, match=line):
        shard_sets.check_output(output)


def test_a_set_has_no_more_shards_than_five_digits():
    assert shard_sets.shard_path("d/x", 99_999) == "d/x-99999.tfrecord"
    with pytest.raises(InputError, match="at most 100,000 shards; raise shard_size"):
        shard_sets.shard_path("d/x", 100_000)


def test_a_set_elsewhere_is_found_by_its_own_name():
    import tensorflow as tf

    for name in ("cc-00000.tfrecord", "cc-12m-00000.tfrecord"):
        with tf.io.gfile.GFile(f"ram://sets/{name}", "w") as file:
            file.write("x")
    assert shard_sets.find_set("ram://sets/cc") == ["ram://sets/cc-00000.tfrecord"]
    with pytest.raises(InputError, match="ram:// is not supported here; give a path"):
        write("ram://sets/new", "00000.tfrecord")
