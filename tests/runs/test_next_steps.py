import shlex
import sys
from pathlib import Path

from align_keras.runs import next_steps


def test_a_command_is_ready_to_copy(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipes/pretrain.py", "--steps=5"])
    line = next_steps.recipe("search.py", "query", "two dogs", index="my INDEX", batch_size=3)
    _, *words = shlex.split(line)
    assert words == ["recipes/search.py", "query", "two dogs", "--index=my INDEX", "--batch-size=3"]
    next_steps.show(line, "")
    assert capsys.readouterr().out == f"\nnext:\n  {line}\n"


def test_python_is_called_as_this_one_can_be(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pretrain.py"])
    for name, path in (("python", ""), (".venv/bin/python", "elsewhere")):
        folder = tmp_path / ".venv" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        python = folder / "python"
        python.touch(0o755)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setattr(sys, "prefix", str(folder.parent))
        monkeypatch.setenv("PATH", path or str(folder))
        assert next_steps.recipe("evaluate.py") == f"{name} evaluate.py"
        (folder / "tensorboard").touch()
        shown = next_steps.tensorboard(Path("runs/a b"))
        assert shown == ".venv/bin/tensorboard --logdir='runs/a b'"


def test_a_run_that_rendered_its_data_is_evaluated_on_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipes/pretrain.py"])
    found = next_steps.held_out_of("runs/a", "", "")
    _, evaluate, search = next_steps.of_training("runs/a", found)
    assert shlex.split(evaluate)[1:] == [
        *("recipes/evaluate.py", "--model=runs/a", "--task=retrieval:held_out"),
        "--data=runs/a/data/eval-*.tfrecord",
    ]
    assert shlex.split(search)[1:4] == ["recipes/search.py", "index", "--model=runs/a"]
    assert next_steps.held_out_of("runs/a", "", "x") == ""
    assert next_steps.held_out_of("runs/a", "y", "x") == "y"
