"""Every flag for a path is read as a path: ``~`` is expanded, and addresses are checked."""

import dataclasses
import runpy
import sys
import typing

import experiments
import pytest
import tyro
from conftest import ROOT
from in_process import run_recipe_here

from align_keras import paths
from align_keras.errors import InputError
from align_keras.runs import command
from align_keras.runs.classification_settings import ClassificationSettings
from align_keras.runs.pretraining_settings import PretrainSettings

#: String flags that are not paths; a new string flag must be listed here or marked as a path.
NO_PATHS = {
    "archive_column",
    "caption_column",
    "experiment",
    "freeze",
    "host",
    "image_column",
    "license",
    "preset",
    "profile",
    "split",
    "suite",
    "task",
    "text",
    "tpu",
    "tracker",
    "train_split",
    "unsafe_field",
    "without",
}
SUPPORTED = {
    paths.LOCAL: "",
    paths.FILES: "gs://b/x",
    paths.DATA: "gs://b/x",
    paths.PRESET: "hf://a/b",
}


def classes_of_recipes():
    classes = [PretrainSettings, ClassificationSettings]
    for name in ("evaluate", "export", "inspect_data", "prepare_data", "search"):
        names = runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name=name)
        found = [value for key, value in names.items() if key.endswith("Settings")]
        assert found, name
        classes += found
    return list(dict.fromkeys(classes))


def fields_of(settings_class):
    """``(class, field, type, mark or None)`` for each field, also of nested classes."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    for field in dataclasses.fields(settings_class):
        marks = getattr(hints[field.name], "__metadata__", ())
        kind = typing.get_args(hints[field.name])[0] if marks else hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from fields_of(kind)
        else:
            mark = next((own for own in marks if isinstance(own, paths.PathMark)), None)
            yield settings_class, field.name, kind, mark


@pytest.fixture
def all_fields(monkeypatch):
    monkeypatch.setenv("ALIGN_KERAS_IMPORT", "")  # recipes set it
    return [field for found in classes_of_recipes() for field in fields_of(found)]


def test_every_flag_of_text_is_a_path_or_known_to_be_none(all_fields):
    unmarked = {name for _, name, kind, mark in all_fields if kind is str and mark is None}
    assert unmarked == NO_PATHS
    assert sum(mark is not None for *_, mark in all_fields) > 40


def test_every_path_is_read_as_one(all_fields, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for settings_class, name, _, mark in all_fields:
        if mark is None:
            continue

        def read(value, own=settings_class, name=name):
            missing = (dataclasses.MISSING, tyro.MISSING)
            required = {
                field.name: ""
                for field in dataclasses.fields(own)
                if field.default in missing and field.default_factory is dataclasses.MISSING
            }
            return getattr(command.with_paths(own(**{**required, name: value})), name)

        assert read("~/x") == "/home/me/x", (settings_class, name)
        if address := SUPPORTED[mark]:
            assert read(address) == address
        refused = ("https://x/y",) if mark.remote else ("gs://b/x", "https://x/y")
        for address in refused:
            with pytest.raises(InputError, match="is not supported here") as raised:
                read(address)
            assert raised.value.setting == name


def test_flags_are_read_so_and_settings_of_the_library_checked(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    flags = ["--workdir=~/run", "--train-data=~/a-*,tfds/~", "--prompts", "~ {}"]
    settings = experiments.read_pretraining(flags, "quickstart", "")
    assert settings.run.workdir == "/home/me/run"
    assert settings.data.train_data == "/home/me/a-*,tfds/~"
    assert settings.data.prompts == ("~ {}",)
    with pytest.raises(InputError, match="workdir: http://b/x: http:// is not supported here"):
        settings.replace(workdir="http://b/x").check()


def test_every_file_system_is_one_of_tensorflows(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    command.check_file_systems(None)
    flags = ["--workdir=ram://run", "--train-data=gs://b/x,gss://c"]
    settings = experiments.read_pretraining(flags, "quickstart", "")
    with pytest.raises(InputError, match="TensorFlow has no file system gss://, only ") as raised:
        command.check_file_systems(settings)
    assert raised.value.setting == "train_data"


@pytest.mark.parametrize(
    ("name", "flags", "line"),
    [
        ("pretrain.py", ["--workdir=ftp://b/run"], "--workdir: ftp://b/run: ftp:// is not suppor"),
        ("pretrain.py", ["--workdir=gss://b/r"], "--workdir: gss://b/r: TensorFlow has no file"),
        (
            "prepare_data.py",
            ["--captions=x.csv", "--output=gs://b/train"],
            "--output: gs://b/train: gs:// is not supported here; give a path on this machine",
        ),
        (
            "prepare_data.py",
            ["--captions=x.csv", "--output=a[1]/train", "--engine=beam"],
            "--output: Beam reads *?[\\ in a[1]/train as a pattern; choose another name, or --eng",
        ),
        ("prepare_data.py", ["--captions=x.csv", "--output=d/"], "--output: d/ ends in a slash"),
        (
            "search.py",
            ["query", "--index=s3://x"],
            "--index: s3://x: s3:// is not supported here",
        ),
        (
            "search.py",
            ["index", "--model=m", "--output=o", "--images=ftp://b/x.csv"],
            "--images: ftp://b/x.csv: ftp:// is not supported here; give a path on this machine",
        ),
        (
            "search.py",
            ["query", "--index=i", "--image=a.png", "--sheet=./a.png"],
            "--sheet: the query image would be overwritten; give another",
        ),
        (
            "export.py",
            ["--model=m", "--output=birds [v2]/1"],
            "--output: birds [v2]/1: TensorFlow reads [ as a pattern, and would not load",
        ),
    ],
)
def test_what_a_path_cannot_be_is_one_line(name, flags, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("image,caption\n")
    found = run_recipe_here(name, *flags)
    assert found.startswith(f"{name}: {line}")
    assert "\n" not in found
    assert list(tmp_path.iterdir()) == [tmp_path / "x.csv"]


def test_the_client_reads_the_home_folder_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = run_recipe_here("serving_client.py", "--images=~/none.jpg")
    assert found == "serving_client.py: --images: no file /home/me/none.jpg"
