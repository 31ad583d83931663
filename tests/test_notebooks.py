"""Runs the complete notebooks on small data."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from foreign_lines import foreign_lines
from nbclient import NotebookClient

from align_keras.data import scenes
from align_keras.runs import pretraining_data

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Settings of a run with a model of two layers, since tracing takes most of a short run.
SMALL_RUN = ["--model={model}", "--batch-size=40"]
#: The same for a run on prepared scenes, which are not rendered again; without evaluation.
RUN_ON_SCENES = [*SMALL_RUN, "--train-data={run}/data/train-*", "--steps=1", "--warmup-steps=0"]
#: Changed parameters of each notebook; other parameters keep their values.
PARAMETERS = {
    "zero_shot_imagenet": {"RUN": "{run}", "PRETRAIN_FLAGS": RUN_ON_SCENES},
    "retrieval_and_composed_search": {"RUN": "{run}", "PRETRAIN_FLAGS": RUN_ON_SCENES},
    "pretraining": {"NUM_PAIRS": 200, "STEPS": 2, "WORKDIR": "{tmp}", "PRETRAIN_FLAGS": SMALL_RUN},
    "export_and_serving": {"RUN": "{run}", "PRETRAIN_FLAGS": RUN_ON_SCENES, "OUTPUT": "{tmp}"},
}


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """The directory with scenes for the notebooks; the first notebook trains its run in it."""
    folder = tmp_path_factory.mktemp("notebooks") / "run"
    render = scenes.write_scenes

    def render_few(directory, num_train, num_eval, seed):
        return render(directory, num_train // 80, num_eval // 5, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "write_scenes", render_few)
        pretraining_data.quickstart_data(folder / "data", seed=0)
    return folder


def with_places(value, places):
    """A parameter in which the names of places are replaced by paths."""
    if isinstance(value, list):
        return [flag.format(**places) for flag in value]
    return value.format(**places) if isinstance(value, str) else value


def run_notebook(path, parameters):
    """Runs a notebook in its folder; changed parameters follow the cell tagged ``parameters``."""
    notebook = nbformat.read(path, as_version=4)
    (place,) = [
        place
        for place, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    ]
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, run_directory, tiny_run, tmp_path, monkeypatch):
    # The hub is never asked, even with a network. The notebooks report this and continue.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # users do not set it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    places = {"run": run_directory, "tmp": tmp_path, "model": tiny_run}
    parameters = {name: with_places(value, places) for name, value in PARAMETERS[path.stem].items()}
    unknown = [name for name in parameters if name not in source_of(path)]
    assert not unknown
    notebook = run_notebook(path, parameters)
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert pictures
    texts = [
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    ]
    assert foreign_lines("\n".join(texts)) == []


def source_of(path):
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_kept(path):
    """It installs the package, selects a device, defines no class, and has one run's outputs."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert f"/notebooks/{path.name})" in notebook.cells[0].source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(re.search(r"^\s*class ", cell.source, re.MULTILINE) for cell in code)
    assert "%pip install" in code[0].source
    for choice in ("FULL = False", 'DEVICE = "auto"'):
        assert choice in code[1].source
    assert "make_strategy(DEVICE)" in code[2].source
    assert "--strategy={DEVICE}" in source_of(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert not any(re.search(r"(^|\s)/\w+/", output.get("text", "")) for output in outputs)
    assert str(Path.home()) not in nbformat.writes(notebook)
