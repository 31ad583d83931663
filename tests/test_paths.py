import os

import pytest

from align_keras import paths
from align_keras.errors import InputError


def test_addresses_are_reported_from_paths():
    for path in ("a/b", "/a", "a://", "C:/x", "dir/gs://x", "tfds:name", "gs:/x", "://x", ""):
        assert paths.scheme(path) == ("a" if path == "a://" else "")
    assert paths.scheme("GS://bucket/x") == "gs"
    assert paths.scheme("s3a+x.y-z://b") == "s3a+x.y-z"


@pytest.mark.parametrize(
    ("mark", "value", "line"),
    [
        (paths.LOCAL, "gs://b/x", "gs://b/x: gs:// is not supported here; give a path on this ma"),
        (paths.FILES, "http://b/x", "machine or gs://...$"),
        (paths.DATA, "a-*,hf://b/x", "^hf://b/x: hf:// is not"),
        (paths.DATA, "tfds:ftp://b/x", "^ftp://b/x: ftp:// is not"),
        (paths.PRESET, "https://x/y", "or hf://... or kaggle://... or modelscope://... or gs://"),
    ],
)
def test_an_address_of_another_kind_is_one_line(mark, value, line):
    with pytest.raises(InputError, match=line) as raised:
        mark.read(value)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError):
        mark.check(value)


def test_a_file_system_of_tensorflows_is_known_later_and_a_file_is_local():
    for value in ("gs://b/x", "s3://b/x", "hdfs://b/x"):
        assert paths.FILES.read(value) == value
        assert paths.FILES.remote_parts(value) == [value]
    assert paths.DATA.remote_parts("a-*,gs://b/x,ram://c") == ["gs://b/x", "ram://c"]
    assert paths.PRESET.remote_parts("hf://a/b") == []
    for mark in (paths.LOCAL, paths.FILES, paths.PRESET):
        assert mark.read("file:///a/b") == "/a/b"
    assert paths.DATA.read("file:///a-*,b") == "/a-*,b"
    assert paths.absolute("gs://b//x/") == "gs://b/x"


def test_a_tilde_is_the_home_folder_where_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.LOCAL.read("~/x") == "/home/me/x"
    assert paths.LOCAL.read("~") == "/home/me"
    for value in ("a~", "./~/x", "~nobody-of-this-name/x", ""):
        assert paths.LOCAL.read(value) == value
    assert paths.LOCAL.read("a,~/b") == "a,~/b"
    assert paths.DATA.read("~/a-*,b,~/c") == "/home/me/a-*,b,/home/me/c"
    assert paths.DATA.read("tfds:~/sets/x@val") == "tfds:/home/me/sets/x@val"
    assert paths.DATA.read("tfds:coco") == "tfds:coco"
    assert paths.PRESET.read("~/runs/a") == "/home/me/runs/a"
    for value in ("hf://kakaobrain/align-base", "kaggle://a/b/keras/c", "bert_base_en"):
        assert paths.PRESET.read(value) == value


def test_what_exists_as_it_is_written_is_no_pattern(tmp_path):
    def made(name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        return str(tmp_path / name)

    literal, other = made("birds [v2]/a-1"), made("birds v/a-1")
    star, plain = made("what*/a-1"), made("whatever/a-1")
    set_2, set_v = made("sets/set [v2]-0"), made("sets/set v-0")
    digit = made("sets/x-1")
    cases = {
        "birds [v2]/a-1": [literal],
        "birds [v2]/a-*": [literal],
        "birds [v]/a-*": [other],
        "*/a-[0-9]": [literal, other, star, plain],
        "what*/a-*": [star],
        "what?*/a-*": [star, plain],
        "sets/set [v2]-*": [set_2],
        "sets/set [v]-*": [set_v],
        "sets/x-[0-9]": [digit],
        "birds [v2]": [os.path.dirname(literal)],
        "none/*": [],
    }
    for pattern, expected in cases.items():
        assert sorted(paths.matching(str(tmp_path / pattern))) == sorted(expected), pattern


def test_a_relative_pattern_keeps_its_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a [1]").mkdir()
    (tmp_path / "a [1]" / "x").touch()
    assert paths.matching("a [1]/*") == ["a [1]/x"]
    assert paths.matching("./a*/x") == ["./a [1]/x"]


def test_two_addresses_have_two_file_names():
    found = {paths.file_name_of(name) for name in ("a/b", "a-b", "hf://a/b", "c/a/b", "a/b/")}
    assert len(found) == 5
    for name in found:
        assert name.strip(".-") == name
        assert "/" not in name
    assert paths.file_name_of("hf://kakaobrain/align-base").startswith("kakaobrain-align-base-")
    assert len(paths.file_name_of("x" * 500)) < 100
