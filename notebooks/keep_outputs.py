"""Runs the notebooks one after another, and keeps their outputs in them.

    make notebooks

Give names of notebooks to run only these. The notebooks use the run of ``make pretrain``; if there
is none, the first of them trains it. Times are not recorded, so that a second run changes only what
differs.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

_FOLDER = Path(__file__).resolve().parent


def keep_outputs(path: Path) -> None:
    """Runs a notebook from its folder, and replaces the file."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=place).execute()
    clean(notebook)
    nbformat.write(notebook, path)


def clean(notebook: nbformat.NotebookNode) -> None:
    """Removes lines of progress, and the folders of this machine."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = output.text.replace(str(_FOLDER.parent), "..")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in _FOLDER.glob("*.ipynb")):
        print(f"running {name}", flush=True)
        keep_outputs(_FOLDER / f"{name}.ipynb")
