import subprocess
import sys

from conftest import ROOT

CODE = """
import runpy, sys
sys.path.insert(0, "recipes")
TABLE = sys.argv[1]
MODEL = ["--model=none", "--output=none"]
for name, *arguments in (
    ["evaluate.py", "--help"],
    ["export.py", "--help"],
    ["search.py", "query", "--help"],
    ["verify.py", "none"],
    ["prepare_data.py", f"--captions={TABLE}", "--caption-column=captoin", "--output=none"],
    ["evaluate.py", f"--data={TABLE}", "--task=zero_shot:x", *MODEL],
    ["search.py", "index", f"--images={TABLE}", "--select", "splti=test", *MODEL],
    ["finetune_classification.py", f"--train-data={TABLE}", "--task=x", "--model=none"],
):
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(f"recipes/{name}", run_name="__main__")
    except SystemExit as ended:
        print(ended.code or "")
    assert not {"tensorflow", "keras"} & sys.modules.keys(), name
"""


def test_help_and_columns_that_are_not_there_need_no_tensorflow(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n0.jpg,a ball\n")
    ended = subprocess.run(
        [sys.executable, "-c", CODE, table], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for flag in ("--fold-size", "--quantize", "--without-weight"):
        assert flag in ended.stdout
    assert "verify.py: none: no such file or folder" in ended.stdout.splitlines()
    found = f"{table}: no column {{}}, only image, caption"
    for name, flag, column, more in (
        ("prepare_data.py", "caption-column", "captoin", "did you mean caption?"),
        ("evaluate.py", "data", "class_name or label", ""),
        ("search.py", "select", "splti", ""),
        ("finetune_classification.py", "train-data", "class_name or label", ""),
    ):
        line = f"{name}: --{flag}: {found.format(column)}" + (f"; {more}" if more else "")
        assert line in ended.stdout.splitlines()
