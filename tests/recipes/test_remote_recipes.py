"""The recipes on a remote file system of TensorFlow, and paths that must be local."""

import json
import runpy

import keras
import pytest
from conftest import ROOT
from in_process import run_recipe_here

from align_keras import AlignDualEncoder, uploads
from align_keras.data import records
from align_keras.data.inspecting import inspect
from align_keras.data.inspection_settings import Sampling, TrainingInput
from align_keras.errors import InputError
from align_keras.evaluation.tasks.evaluate import check_output, evaluate, make_task
from align_keras.export import writing
from align_keras.remote_path import RemotePath
from align_keras.runs import presets
from align_keras.search.image_index import ImageIndex

ROOM = "ram://recipes"


@pytest.fixture(scope="module")
def run(tiny_run):
    return put(tiny_run, f"{ROOM}/run")


def put(folder, address):
    for path in folder.rglob("*"):
        if path.is_file():
            target = RemotePath(f"{address}/{path.relative_to(folder)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            uploads.put(path, target)
    return RemotePath(address)


def test_a_run_is_evaluated_where_it_is(run, tiny_model, scene_photos):
    photos, cache = put(scene_photos, f"{ROOM}/photos"), RemotePath(f"{ROOM}/cache")
    recipe = runpy.run_path(str(ROOT / "recipes" / "evaluate.py"))
    output = recipe["default_output"](str(run))
    assert output == run / "evaluation"
    task = make_task("zero_shot:kinds", {"data": str(photos), "cache": str(cache)})
    evaluate(tiny_model, task, output, str(run))
    written = {path.name for path in output.iterdir()}
    pictures = {f"zero_shot-kinds-{name}.png" for name in ("confusion", "images")}
    assert written == {"zero_shot-kinds.json", "zero_shot-kinds.npz", *pictures}
    for name in pictures:
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    result = json.loads((output / "zero_shot-kinds.json").read_text())
    assert result["pretrained"] == str(run)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]
    with pytest.raises(
        InputError, match=f"kinds.json: it holds the result of another model, {run};"
    ):
        check_output(task, f"{run}/evaluation", "ram://another")


def test_an_export_is_written_elsewhere_and_verified(run, tiny_model, monkeypatch, capsys):
    def write(model, folder, **_):
        (folder / "assets").mkdir()
        for name in ("saved_model.pb", "assets/README.md"):
            (folder / name).write_text(name)

    monkeypatch.setattr(writing, "write_saved_model", write)
    monkeypatch.setattr(presets, "load_model", lambda *_: tiny_model)
    flags = [f"--model={run}", f"--output={ROOM}/served/tiny/1"]
    assert run_recipe_here("export.py", *flags) is None
    printed = capsys.readouterr().out
    assert f"{ROOM}/served/tiny/1: assets, checksums.json, saved_model.pb" in printed
    assert f"-e MODEL_NAME=tiny \\\n    -e MODEL_BASE_PATH={ROOM}/served tensorflow" in printed
    line = run_recipe_here("export.py", *flags)
    assert line == (
        f"export.py: --output: {ROOM}/served/tiny/1: already exists; give a new folder, or "
        "remove it"
    )
    assert run_recipe_here("verify.py", f"{ROOM}/served/tiny/1/", run / "preset") is None
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{ROOM}/served/tiny/1: exported model, 2 files, ")
    assert printed[1].startswith(f"{run}/preset: preset, 8 files, ")
    damaged = RemotePath(f"{ROOM}/served/tiny/1/assets/README.md")
    damaged.write_text("")
    assert run_recipe_here("verify.py", f"{ROOM}/served") == 1
    assert f"verify.py: {damaged}: damaged: 0 bytes, not the " in capsys.readouterr().err


def test_a_damaged_preset_elsewhere_is_named(run, tmp_path):
    copy = f"{ROOM}/damaged"
    uploads.fetched(run / "preset", tmp_path / "preset", uploads.files_below(run / "preset"))
    put(tmp_path / "preset", copy)
    (RemotePath(copy) / "model.weights.h5").write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match=rf"^{copy} \(model.weights.h5\): damaged: 4 bytes"):
        AlignDualEncoder.from_preset(copy)
    for address, problem in (
        (f"{ROOM}/none", "no such folder"),
        (ROOM, "no config.json in the folder"),
    ):
        with pytest.raises(InputError, match=f"^{address}: {problem}"):
            AlignDualEncoder.from_preset(address)


def test_a_model_is_saved_elsewhere_as_keras_does(tiny_model, monkeypatch):
    monkeypatch.setattr(keras.Model, "save", lambda _, path, **__: path.write_text(path.suffix))
    path = RemotePath(f"{ROOM}/model.keras")
    tiny_model.save(str(path))
    assert path.read_text() == ".keras"
    with pytest.raises(InputError, match=f"^{path}: already exists"):
        tiny_model.save(str(path), overwrite=False)


def test_shards_elsewhere_are_inspected(scene_shards):
    RemotePath(f"{ROOM}/shards").mkdir(parents=True)
    RemotePath(f"{ROOM}/shards/eval-00000.tfrecord").copy_from(scene_shards[1][0])
    inspect(
        records.find_shards(f"{ROOM}/shards/eval-*"),
        f"{ROOM}/inspected",
        Sampling(samples=1),
        TrainingInput(seconds=0.0),
    )
    written = {path.name for path in RemotePath(f"{ROOM}/inspected").iterdir()}
    assert written == {"report.json", "samples.png"}


@pytest.mark.parametrize(
    ("name", "flags", "setting"),
    [
        ("search.py", ["index", "--model=m", "--images=i", "--output=gs://b/i"], "--output"),
        ("search.py", ["query", "a", "--index=gs://b/i"], "--index"),
        ("prepare_data.py", ["--source=s", "--output=gs://b/i"], "--output"),
    ],
)
def test_what_must_be_on_this_machine_says_so(name, flags, setting, tmp_path, monkeypatch):
    """An index is memory-mapped and grows; without Beam, shards are written and renamed locally."""
    monkeypatch.chdir(tmp_path)
    found = run_recipe_here(name, *flags)
    assert found.startswith(
        f"{name}: {setting}: gs://b/i: gs:// is not supported here; give a path"
    )
    assert not list(tmp_path.iterdir())


def test_an_index_of_the_library_must_be_on_this_machine():
    with pytest.raises(InputError, match="^ram://i: ram:// is not supported here; give a path on"):
        ImageIndex("ram://i")
