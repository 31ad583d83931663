"""The command that fine-tunes a classifier."""

import pytest
from in_process import run_recipe_here


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--model=x"], "--task: not given"),
        (["--task=x"], "--model: not given"),
        (
            ["--model=x", "--task=x", "--experiment=none"],
            "--experiment: unknown experiment 'none'; choose one of",
        ),
        (
            ["--model=x", "--task=x", "--full.image-size=4"],
            "--full.image-size: 4 is below 8; raise --full.image-size to 8 or more",
        ),
        (["--model=x", "--task=x", "--data=none.jsonl"], "--data: no file none.jsonl"),
    ],
)
def test_the_command_ends_in_one_line(flags, line):
    name = "finetune_classification.py"
    assert run_recipe_here(name, *flags).startswith(f"{name}: {line}")
