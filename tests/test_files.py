import os
from pathlib import Path

import pytest

from align_keras import files
from align_keras.errors import InputError


def fail(path):
    path.write_text("half")
    raise RuntimeError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "one.json"
    files.write_whole(path, "äöü")
    assert path.read_text(encoding="utf-8") == "äöü"
    with pytest.raises(RuntimeError):
        files.write_whole(path, fail)
    assert path.read_text(encoding="utf-8") == "äöü"
    files.write_whole(path, lambda partial: partial.write_text(partial.suffix))
    assert path.read_text() == ".json"


def test_processes_that_write_one_file_at_a_time_do_not_meet(tmp_path):
    path = tmp_path / "one.json"

    def write_another(partial):
        partial.write_text("first")
        files.write_whole(path, "second")  # simulates another process
        assert partial.read_text() == "first"

    files.write_whole(path, write_another)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_of_a_file_is_removed(tmp_path, monkeypatch):
    partials = []

    def be_killed(partial):
        partial.write_text("half")
        partials.append(partial.name)

    path = tmp_path / "one.json"
    files.write_whole(path, be_killed)
    own = partials[0]
    assert files.whole_name(own) == "one.json"
    assert files.whole_name("a.b.partial.npy") == "a.b.npy"  # the name in earlier versions
    assert files.whole_name("partial.json") == "partial.json"
    process = f"-{os.getpid()}-"
    parent, dead = own.replace(process, f"-{os.getppid()}-"), own.replace(process, f"-{2**22 + 1}-")
    elsewhere = own.replace(own.split(".")[1].split("-")[0], "0123abcd")
    old = elsewhere.replace("0123abcd", "0123abce")
    # The last one is a user's own file.
    kept = [parent, elsewhere, own.replace("one", "other"), "one.partial.json"]
    for name in (own, dead, old, *kept):
        (tmp_path / name).write_text("half")
    for name in (old, kept[-1]):
        os.utime(tmp_path / name, (0, 0))
    files.write_whole(path, "whole")
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([path.name, *kept])


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "folder"
    with files.whole_folder(path) as folder:
        assert not path.exists()
        (folder / "a").write_text("1")
    assert (path / "a").read_text() == "1"
    with pytest.raises(RuntimeError), files.whole_folder(path, replace=True) as folder:
        fail(folder / "b")
    assert [entry.name for entry in path.parent.iterdir()] == ["folder"]
    assert [entry.name for entry in path.iterdir()] == ["a"]
    with files.whole_folder(path, replace=True) as folder:
        (folder / "c").touch()
    assert [entry.name for entry in path.iterdir()] == ["c"]


def test_a_folder_with_files_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with files.whole_folder(path) as folder:  # an empty folder may exist
        (folder / "a").touch()
    with pytest.raises(OSError, match="not empty"), files.whole_folder(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("text", ["", '{"steps": 1', "[1, 2]"])
def test_a_damaged_file_of_a_run_is_named(text, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        files.read_json(path, dict)
    assert raised.value.place.file == str(path)
    assert raised.value.problem == "damaged"


def test_work_of_a_killed_process_is_done_again_and_somebodys_folder_left_alone(tmp_path):
    work = tmp_path / "one.partial"
    work.mkdir()
    (work / "mine").touch()
    with (
        pytest.raises(InputError, match="holds mine, which this command did not write; move"),
        files.whole_folder(tmp_path / "one"),
    ):
        pass
    assert [path.name for path in work.iterdir()] == ["mine"]
    (work / "lock").touch()  # now the folder looks like a killed process's
    with files.whole_folder(tmp_path / "one") as folder:
        assert not (work / "mine").exists()
        (folder / "a").touch()
        with (
            pytest.raises(InputError, match="another run is writing .*/one; wait for .*, process"),
            files.whole_folder(tmp_path / "one"),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_process_left_beside_a_complete_folder_is_removed(tmp_path):
    work = tmp_path / "one.partial"
    with files.whole_folder(tmp_path / "one") as folder:
        (folder / "a").touch()
        files.remove_left_work(tmp_path / "one")  # this process is still at work there
        assert (folder / "a").exists()
    work.mkdir()
    (work / "mine").touch()
    files.remove_left_work(tmp_path / "one")
    assert (work / "mine").exists()  # another program's
    (work / "lock").touch()
    files.remove_left_work(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_link_leads_to_is_not_removed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").touch()
    with files.work_folder(tmp_path / "work") as work:
        (work / "link").symlink_to(tmp_path / "kept")
    assert not work.exists()
    assert (tmp_path / "kept" / "a").exists()


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "preset"
    folder.mkdir()
    (folder / "old").touch()

    def fail(path, target):
        if target == folder and path.name == "preset":
            raise KeyboardInterrupt
        return rename(path, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt), files.whole_folder(folder, replace=True) as new:
        (new / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_a_folder_that_a_kill_left_aside_comes_back(tmp_path):
    work = tmp_path / "preset.partial"
    (work / "replaced").mkdir(parents=True)
    (work / "replaced" / "old").touch()
    (work / "lock").touch()
    with pytest.raises(ValueError), files.whole_folder(tmp_path / "preset", replace=True):
        raise ValueError
    assert (tmp_path / "preset" / "old").exists()
