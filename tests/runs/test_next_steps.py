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
    assert shlex.split(search)[4:] == [
        "--images=runs/a/data/eval-*.tfrecord",
        "--output=runs/a/index",
    ]
    for none in ("", "tfds:scenes/test"):  # not a form that search.py reads
        search = next_steps.of_training("gs://b/a", none)[-1]
        assert shlex.split(search)[4:] == ["--images=PHOTOS", "--output=INDEX"]
    assert next_steps.held_out_of("runs/a", "", "x") == ""
    assert next_steps.held_out_of("runs/a", "y", "x") == "y"


def test_a_held_out_set_is_not_trained_on(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["recipes/prepare_data.py"])
    train, val = tmp_path / "train", tmp_path / "val"
    pattern = "-?????.tfrecord"

    def flags(output, kept=100):
        inspect, *others = next_steps.of_packing(str(output), kept, 100)
        assert shlex.split(inspect)[2:] == [f"--data={output}{pattern}"]
        return [shlex.split(line)[2:-1] for line in others]

    both = [f"--train-data={train}{pattern}", f"--eval-data={val}{pattern}"]
    assert flags(train) == [both[:1]]
    assert flags(val) == [["--train-data=TRAINING_SHARDS", both[1]]]
    for output in (train, val):
        Path(f"{output}-00000.tfrecord").touch()
    assert flags(train) == flags(val) == [both]
    assert flags(train, kept=49) == []
