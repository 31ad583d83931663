"""Runs the first cells of every notebook in environments like Colab's.

    python tests/colab.py ENVIRONMENT

``make test-colab`` makes the environment from ``requirements-colab.txt``. Each different install
cell runs in a copy of the environment, in an empty folder, and clones this checkout. Then the next
cells run, up to the choice of a device. The files of TensorFlow and protobuf must not change,
because Colab's TensorFlow is built for its GPU.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/align-keras/align-keras"
#: Packages that must not change.
HELD = ("tensorflow", "tensorflow-text", "protobuf")
#: Extras that must not change these packages either; onnx and beam need another protobuf.
EXTRAS = "data,litert,notebooks,page,search,serving,tfds"
#: The cells for installation, parameters and device.
FIRST_CELLS = 3

RUN_CELLS = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1])):
    shell.run_cell(cell).raise_error()
    if code := shell.user_ns.get("_exit_code"):
        sys.exit(f"a command of this cell ended with {code}:\\n{cell}")
import align_keras
print("align_keras of", align_keras.__file__)
"""

PLACES = """
import json, os, sys
from importlib.metadata import distribution
found = {}
for name in sys.argv[1:]:
    one = distribution(name)
    record = next(file for file in one.files if file.name == "RECORD")
    status = os.stat(one.locate_file(record))
    found[name] = [one.version, status.st_ino, status.st_mtime_ns]
print(json.dumps(found))
"""


def main(environment):
    """Tests every notebook; returns the faults, one line each."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkout = commit_working_tree(folder / "checkout")
        if fault := extras_fault(environment, checkout):
            wrong.append(fault)
        print(f"extras: {fault or 'as they should be'}", flush=True)
        by_install = {}
        for notebook in NOTEBOOKS:
            cells = code_cells(notebook)
            by_install.setdefault(cells[0], []).append((notebook.stem, cells))
        for number, notebooks in enumerate(by_install.values()):
            copy = folder / f"environment-{number}"
            shutil.copytree(environment, copy, symlinks=True, copy_function=link_or_copy)
            for name, cells in notebooks:
                fault = first_cells_fault(copy, folder / name, cells, checkout)
                print(f"{name}: {fault or 'as it should be'}", flush=True)
                wrong += [f"{name}: {fault}"] if fault else []
    return wrong


def link_or_copy(source, target):
    """Links a file; an installer removes a file before it writes another one in its place."""
    try:
        os.link(source, target)
    except OSError:  # the target is on another disk
        shutil.copy2(source, target)


def commit_working_tree(folder):
    """Makes a repository with this checkout's files in their current state, to clone from."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init"], ["add", "--all", "--force"], [*author, "commit", "-m", "checkout"]):
        arguments = ["git", "-C", str(folder), *command]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def extras_fault(environment, checkout):
    """Returns which packages the extras would replace; empty if none."""
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--dry-run"]
    command += ["--report", "-", f"{checkout}[{EXTRAS}]"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        return f"[{EXTRAS}] does not resolve: {run.stderr.strip()}"
    found = [one["metadata"] for one in json.loads(run.stdout)["install"]]
    put = [f"{one['name']} {one['version']}" for one in found if one["name"].lower() in HELD]
    return f"[{EXTRAS}] would install {', '.join(put)}" if put else ""


def code_cells(notebook):
    """Returns the first code cells of a notebook, unchanged."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return code[:FIRST_CELLS]


def first_cells_fault(environment, folder, cells, checkout):
    """Runs the cells in an empty folder; returns the fault, or an empty string if there is none."""
    folder.mkdir()
    (folder / "cells.json").write_text(json.dumps(cells))
    (folder / "content").mkdir()
    python = str(environment / "bin" / "python")
    # Git takes the checkout instead of the address. Nothing else of this machine's Python is
    # visible.
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{checkout}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    places = [python, "-c", PLACES, *HELD]
    before = subprocess.run(places, check=True, capture_output=True, text=True).stdout
    run = subprocess.run(
        [python, "-c", RUN_CELLS, str(folder / "cells.json")],
        cwd=folder / "content",
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        return "its cells fail:\n" + "\n".join(run.stdout.splitlines()[-30:])
    if "align_keras of " + str(environment) not in run.stdout:
        return f"align_keras was not installed into {environment}:\n{run.stdout}"
    after = subprocess.run(places, check=True, capture_output=True, text=True).stdout
    before, after = json.loads(before), json.loads(after)
    changed = [f"{name} {before[name]} became {after[name]}" for name in HELD]
    changed = [
        line for name, line in zip(HELD, changed, strict=True) if before[name] != after[name]
    ]
    if changed:
        return f"installed over what is there: {'; '.join(changed)}"
    check = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    return f"pip check: {check.stdout.strip()}" if check.returncode else ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit("\n".join(main(Path(sys.argv[1]).absolute())) or None)
