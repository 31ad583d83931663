"""Commands whose disk becomes full: one line, no incomplete files, and they can continue."""

import re

import pytest
from command_runs import LIMIT, assert_same, left_by, undisturbed
from commands import RECIPES

from align_keras.runs.verifying import verify

pytestmark = pytest.mark.faults


def run(server, name, material, workdir, limit=0):
    """The exit code, and the lines that the command itself printed."""
    output = workdir.with_name(f"{workdir.name}-{limit}.txt")
    arguments = (name, str(material), str(workdir), None, limit)
    process = server.start("commands:run", *arguments, output=output)
    status, text = process.wait(LIMIT), output.read_text(errors="replace")
    assert "Traceback" not in text, text
    return status, re.findall(rf"(?m)^{RECIPES[name]}: .*", text)


def partial_files(folder):
    return [path for path in folder.rglob("*") if re.search("partial|unfinished|_temp", path.name)]


@pytest.mark.parametrize(
    ("name", "limits", "files"),
    [
        # A checkpoint is larger than the first limit; the final output is larger than the second.
        ("finetune_retrieval", (60_000, 180_000), ("checkpoints/newest/", "preset")),
        ("finetune_classification", (10_000, 80_000), ("head/checkpoints/", "classifier.keras")),
    ],
)
def test_fine_tuning(name, limits, files, server, material, tmp_path):
    for limit, file in zip(limits, files, strict=True):
        status, (line,) = run(server, name, material, tmp_path / "run", limit)
        assert status == 1
        assert line.startswith(f"{RECIPES[name]}: {tmp_path / 'run' / file}"), line
        assert line.endswith("free some space, then run the same command again"), line
        assert not partial_files(tmp_path / "run")
    assert run(server, name, material, tmp_path / "run") == (0, [])
    expected, _ = undisturbed(server, name, material)
    assert_same(expected, left_by(server, tmp_path / "run"))


@pytest.mark.parametrize("name", ["export_saved_model", "export_onnx", "export_litert"])
def test_exporting(name, server, material, tmp_path):
    output = tmp_path / "exported"
    status, (line,) = run(server, name, material, output, 12_000)
    assert status == 1
    assert line.startswith("export.py: /"), line
    assert line.endswith("free some space, then run the same command again"), line
    assert not output.exists() and not partial_files(tmp_path)
    assert run(server, name, material, output)[0] == 0
    (found,) = verify(str(output))
    assert not found.faults
