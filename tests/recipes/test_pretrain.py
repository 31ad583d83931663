"""The command: it reads flags without TensorFlow and reports an error in one line."""

import os
import signal

import pytest
from in_process import run_recipe_here
from short_runs import run_recipe, settings_of

from align_keras import signals


def flags_of(settings, *names):
    """The given settings as flags."""
    values = settings.flat()
    return [f"--{name.replace('_', '-')}={values[name]}" for name in names]


def test_bad_input_ends_without_a_stack_trace():
    result = run_recipe("pretrain.py", "--train-data=/none/x-*")
    assert result.returncode == 1
    # TensorFlow prints no lines around it. On a slow machine, a progress line may come first.
    *start, line = result.stderr.strip().splitlines()
    assert all(own.startswith("reading settings and data: ") for own in start)
    assert line.startswith("pretrain.py: --train-data: no file matches '/none/x-*'")


def test_another_backend_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = run_recipe("pretrain.py")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "pretrain.py: align_keras needs Keras's TensorFlow backend, not jax; "
        "set KERAS_BACKEND=tensorflow"
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
    def pretrain(settings, command, ended):
        assert settings == expected
        with signals.explaining(lambda: "<workdir>=runs/a resumes"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("align_keras.runs.pretraining.pretrain", pretrain)
    expected = settings_of(scene_shards, tmp_path, preset="align_nano_tiny")
    changed = ("train_data", "eval_data", "workdir", "steps", "warmup_steps", "batch_size")
    changed += ("image_size", "resize_size", "vocabulary_size", "eval_every", "checkpoint_every")
    assert run_recipe_here("pretrain.py", *flags_of(expected, *changed, "log_every")) == 143
    line = "pretrain.py: terminated (SIGTERM); --workdir=runs/a resumes\n"
    assert capsys.readouterr().err.endswith(line)
