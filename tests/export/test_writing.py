import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest

from align_keras.errors import InputError
from align_keras.export import towers, writing
from align_keras.files import whole_folder
from align_keras.remote_path import RemotePath


def test_nothing_is_overwritten_or_left_half_written(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").touch()
    (tmp_path / "1.partial").mkdir()  # left by an export that was killed when it was complete
    (tmp_path / "1.partial" / "lock").touch()
    with pytest.raises(InputError, match="already exists; give a new folder") as caught:
        tiny_model.export(tmp_path / "1")
    assert not (tmp_path / "1.partial").exists()
    assert caught.value.place.file == str(tmp_path / "1")
    assert [p.name for p in (tmp_path / "1").iterdir()] == ["mine.txt"]

    def fail(_, folder, verbose):
        (Path(folder) / "saved_model.pb").touch()
        raise OSError("disk full")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", fail)
    with pytest.raises(OSError, match="disk full"):
        tiny_model.export(tmp_path / "2")
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


@pytest.fixture
def written(monkeypatch):
    """Replaces the writer of SavedModels by a simple one; returns the options of each call."""
    asked = []

    def write(model, folder, **options):
        (folder / "saved_model.pb").write_text(str(len(asked)))
        asked.append(options)

    monkeypatch.setattr(writing, "write_saved_model", write)
    return asked


def test_save_writes_a_folder_as_export_does_and_replaces_only_its_like(
    tiny_model, tmp_path, written
):
    for name in ("photos", "served/1"):
        tiny_model.save(tmp_path / name, class_names=["a", "b"])
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert files == ["checksums.json", "saved_model.pb"]
    assert written == [{"class_names": ["a", "b"]}] * 2
    (tmp_path / "photos" / "variables").mkdir()
    tiny_model.save(str(tmp_path / "photos"))
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == files
    assert (tmp_path / "photos" / "saved_model.pb").read_text() == "2"
    # `export` never replaces a folder, and a save only if asked to; other programs' folders are
    # never replaced.
    refused = [
        lambda: tiny_model.export(tmp_path / "photos"),
        lambda: tiny_model.save(tmp_path / "photos", overwrite=False),
        lambda: tiny_model.save(tmp_path / "served"),
        lambda: tiny_model.save(tmp_path),
    ]
    for save in refused:
        with pytest.raises(InputError, match="already exists; give a new folder, or remove it"):
            save()
    (tmp_path / "photos" / "1").mkdir()  # a version inside a model that was saved without version
    with pytest.raises(
        InputError, match="it holds 1 besides a SavedModel; that file would be lost; give"
    ):
        tiny_model.save(tmp_path / "photos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "served"]
    assert len(written) == 3


def test_what_else_save_takes_is_keras_s(tiny_model, tmp_path, written):
    tiny_model.save(tmp_path / "model.keras")
    tiny_model.save(tmp_path / "folder", zipped=False)
    assert (tmp_path / "folder" / "config.json").is_file()
    with pytest.raises(ValueError, match="Invalid filepath extension"):
        tiny_model.save(tmp_path / "model.kears")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model.keras"]
    assert not written


def test_a_model_without_preprocessor_is_refused(build_tiny, tmp_path):
    with pytest.raises(ValueError, match="no preprocessor"):
        build_tiny().export(tmp_path / "1")


@pytest.mark.parametrize(
    ("module", "format", "extra", "setting"),
    [
        ("tensorflow_serving.apis", "tf_saved_model", "serving", "warm_up"),
        ("tf2onnx", "onnx", "onnx", "format"),
    ],
)
def test_what_is_not_installed_is_reported(
    tiny_model, tmp_path, monkeypatch, module, format, extra, setting
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"align-keras\[{extra}\]") as caught:
        tiny_model.export(tmp_path / "1", format=format)
    assert caught.value.setting == setting
    assert isinstance(caught.value.__cause__, ImportError)
    assert not list(tmp_path.iterdir())


def test_towers_of_another_precision_are_refused(tmp_path):
    model = SimpleNamespace(backbone=SimpleNamespace(compute_dtype="bfloat16"))
    with pytest.raises(
        InputError, match="litert needs float32, but the model computes in bfloat16"
    ) as caught:
        towers.write_towers(model, tmp_path, "litert")
    assert caught.value.setting == "format"


def test_a_single_class_is_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="give at least two, not 1") as caught:
        tiny_model.export(tmp_path / "1", class_names=["a"])
    assert caught.value.setting == "class_names"


def test_an_address_is_a_folder_where_tensorflow_writes():
    writing.check_output("ram://exports/none/1")
    (RemotePath("ram://exports/1") / "a").touch()
    with pytest.raises(InputError, match="^ram://exports/1: already exists"):
        writing.check_output("ram://exports/1")
    with pytest.raises(InputError, match=r"^ram://\[2\]/1: TensorFlow reads \["):
        writing.check_output("ram://[2]/1")
    with pytest.raises(InputError, match="https:// is not supported here") as caught:
        writing.check_output("https://bucket/1")
    assert caught.value.place.file == "https://bucket/1"


def test_a_link_to_an_empty_folder_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "1").symlink_to(tmp_path / "disk")
    writing.check_output(tmp_path / "1")
    with whole_folder(tmp_path / "1") as folder:
        (folder / "README.md").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "disk"]
    assert (tmp_path / "1").is_symlink()
    assert (tmp_path / "disk" / "README.md").exists()


def test_a_saved_model_is_not_written_where_it_would_not_load(tmp_path):
    with pytest.raises(InputError, match=r"TensorFlow reads \[ as a pattern") as caught:
        writing.check_output(tmp_path / "birds [v2]" / "1")
    assert caught.value.place.file == str(tmp_path / "birds [v2]" / "1")
    writing.check_output(tmp_path / "birds [v2]" / "1", "onnx")
