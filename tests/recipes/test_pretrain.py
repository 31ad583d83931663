"""The command: its flags without TensorFlow, its one line."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from in_process import run_recipe_here
from short_runs import run_recipe, settings_of, users_environment

from align_keras import signals


def flags_of(settings, *names):
    """A few settings as flags."""
    values = settings.flat()
    return [f"--{name.replace('_', '-')}={values[name]}" for name in names]


def test_help_and_wrong_flags_need_no_tensorflow():
    script = """
import runpy, sys
for arguments in (["--help"], ["--batch-sise=3"], ["--batch-size=1"], ["--experiment=b99"]):
    sys.argv = ["pretrain.py", *arguments]
    try:
        runpy.run_path("recipes/pretrain.py", run_name="__main__")
    except SystemExit as stopped:
        print(stopped.code, file=sys.stderr)
print("tensorflow" in sys.modules, "keras" in sys.modules, file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, 'recipes')\n" + script],
        cwd=ROOT,
        env=users_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("╭", "│", "╰"))]
    assert lines[:2] == ["0", "2"]
    assert lines[2] == ("pretrain.py: --batch-size: 1 is below 2; raise --batch-size to 2 or more")
    assert lines[3].startswith("pretrain.py: --experiment: no 'b99'; choose one of quickstart")
    assert lines[4:] == ["False False"]
    assert "--batch-size" in result.stdout


def test_bad_input_ends_without_a_stack_trace():
    result = run_recipe("pretrain.py", "--train-data=/none/x-*")
    assert result.returncode == 1
    # Nothing of TensorFlow's stands around it either.
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("pretrain.py: --train-data: no file matches '/none/x-*'")


def test_another_backend_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = run_recipe("pretrain.py")
    assert (result.returncode, result.stderr) == (
        1,
        "pretrain.py: align_keras needs Keras's TensorFlow backend, not jax; "
        "set KERAS_BACKEND=tensorflow\n",
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--strategy=tpu"], "--strategy: no TPU answers at local; install the tpu extra"),
        (["--model=/none", "--train-data=x"], "--model: /none: no such folder"),
        (["--eval-data=x"], "--eval-data: it needs training data; give --train-data too"),
        (["--steps=3", "--warmup-steps=9"], "--warmup-steps: 9 is not below 3; lower --warmup"),
    ],
)
def test_the_command_ends_in_one_line(flags, line):
    assert run_recipe_here("pretrain.py", *flags).startswith(f"pretrain.py: {line}")


@pytest.mark.usefixtures("tiny_preset")
def test_a_command_that_a_signal_ends_says_how_to_go_on(
    monkeypatch, scene_shards, tmp_path, capsys
):
    def pretrain(settings, _):
        assert settings == expected
        with signals.explaining(lambda: "<workdir>=runs/a resumes"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("align_keras.runs.pretraining.pretrain", pretrain)
    expected = settings_of(scene_shards, tmp_path, preset="align_nano_tiny")
    changed = ("train_data", "eval_data", "workdir", "steps", "warmup_steps", "batch_size")
    changed += ("image_size", "resize_size", "vocabulary_size", "eval_every", "checkpoint_every")
    assert run_recipe_here("pretrain.py", *flags_of(expected, *changed, "log_every")) == 143
    line = "pretrain.py: terminated (SIGTERM); --workdir=runs/a resumes\n"
    assert capsys.readouterr().err == line
