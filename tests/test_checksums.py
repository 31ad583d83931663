import json

import pytest
from damage import KINDS, damaged_copy

from align_keras import checksums
from align_keras.errors import InputError, MissingInputError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (folder / name).write_bytes(f"{name} holds this".encode())
    (folder / "empty").touch()
    checksums.write_folder(folder)
    return folder


def found(folder, **options):
    return [str(fault) for fault in checksums.faults(checksums.list_of(folder), **options)]


def test_each_file_that_is_not_as_it_was_written_is_named(folder):
    assert found(folder) == []
    (folder / "a").write_bytes(b"a holds that")
    (folder / "b").write_bytes(b"b holds")
    (folder / "below" / "c").unlink()
    (folder / "another").touch()  # a file without a checksum
    remedy = "restore it or write it again; if the change is intended, delete checksums.json"
    assert found(folder) == [
        f"{folder}/a: damaged: its checksum has changed; {remedy}",
        f"{folder}/b: damaged: 7 bytes, not the 12 that were written; {remedy}",
        f"{folder}/below/c: it is missing; 18 bytes were written; {remedy}",
    ]
    with pytest.raises(InputError, match="/a: damaged"):
        checksums.check(folder)


def test_large_files_are_compared_by_size_where_asked(folder):
    (folder / "a").write_bytes(b"a holds that")
    assert found(folder, read_up_to=11) == []
    assert "its checksum has changed" in found(folder, read_up_to=12)[0]


def test_what_a_list_must_have_is_missed(folder):
    assert found(folder, needed=["a", "b"]) == []
    assert f"{folder}/c: not in {folder}/checksums.json" in found(folder, needed=["c"])[0]


def test_without_a_list_nothing_is_found(folder):
    (folder / "checksums.json").unlink()
    (folder / "a").unlink()
    assert found(folder, needed=["a"]) == []


@pytest.mark.parametrize(
    "files",
    [
        "[]",
        '{"a": {"bytes": 1}}',
        '{"a": {"bytes": "1", "sha256": "0"}}',
        '{"../a": {"bytes": 1, "sha256": "0"}}',
        '{"/a": {"bytes": 1, "sha256": "0"}}',
        "[" * 5_000,
    ],
)
def test_a_list_that_is_damaged_or_leads_elsewhere_is_named(files, folder):
    text = f'{{"format": "align_keras checksums 1", "files": {files}}}'
    (folder / "checksums.json").write_text(text)
    with pytest.raises(InputError, match="checksums.json: damaged: not a list of checksums"):
        found(folder)


@pytest.mark.parametrize("seed", range(5 * len(KINDS)))
def test_no_damage_passes(seed, folder, tmp_path):
    copy, done = damaged_copy(folder, tmp_path / "copy", seed)
    before = {name: (folder / name).read_bytes() for name in checksums.files_below(folder)}
    try:
        faults = found(copy)
    except InputError as error:
        faults = [str(error)]
    now = {name: (copy / name) for name in before}
    is_equal = all(
        path.exists() and path.read_bytes() == before[name] for name, path in now.items()
    )
    assert faults or is_equal, done


def test_files_take_their_places_once_all_are_written(folder):
    with checksums.writing_into(folder) as new:
        (new / "a").write_text("new")
        with checksums.writing_into(new) as within:
            (within / "deep").mkdir()
            (within / "deep" / "d").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert found(folder) == []
    listed = json.loads((folder / "checksums.json").read_text())["files"]
    assert sorted(listed) == ["a", "b", "below/c", "deep/d", "empty"]
    before = {path: path.stat() for path in folder.rglob("*")}
    with pytest.raises(KeyError), checksums.writing_into(folder) as new:
        (new / "a").write_text("half")
        raise KeyError
    assert {path: path.stat() for path in folder.rglob("*")}.keys() == before.keys()
    assert (folder / "a").read_text() == "new"


def test_a_new_folder_is_there_with_all_or_not_at_all(tmp_path):
    with pytest.raises(KeyError), checksums.writing_into(tmp_path / "new") as new:
        (new / "a").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_gone_file_is_missing_input(folder):
    (folder / "a").unlink()
    with pytest.raises(MissingInputError):
        checksums.check(folder)
