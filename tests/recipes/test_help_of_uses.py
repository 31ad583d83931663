import subprocess
import sys

from conftest import ROOT

CODE = """
import runpy, sys
for name, *arguments in (["evaluate.py"], ["export.py"], ["search.py", "query"]):
    sys.argv = [name, *arguments, "--help"]
    try:
        runpy.run_path(f"recipes/{name}", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code
    assert not {"tensorflow", "keras"} & sys.modules.keys(), name
"""


def test_help_needs_no_tensorflow():
    ended = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for flag in ("--fold-size", "--quantize", "--without-weight"):
        assert flag in ended.stdout
