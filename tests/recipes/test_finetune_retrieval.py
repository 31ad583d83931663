"""The command that fine-tunes for retrieval."""

import pytest
from in_process import run_recipe_here


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--train-data=x"], "--model: no model to start from; give a preset or a run"),
        (["--model=x"], "--experiment: finetune_flickr30k needs training data; give --train-data"),
        (
            ["--model=x", "--train-data=x", "--initial_temperature=1"],
            "--initial-temperature: a trained model comes with its own; leave out",
        ),
        (
            ["--model=x", "--experiment=none"],
            "--experiment: unknown experiment 'none'; choose one of",
        ),
        (
            ["--model=x", "--experiment=none"],
            "--experiment: unknown experiment 'none'; choose one of",
        ),
        (["--model=/none", "--train-data=x"], "--model: /none: no such folder"),
    ],
)
def test_the_command_ends_in_one_line(flags, line):
    assert run_recipe_here("finetune_retrieval.py", *flags).startswith(
        f"finetune_retrieval.py: {line}"
    )


def test_batch_and_steps_suit_the_data_unless_they_are_given(monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(
        "align_keras.runs.pretraining.pretrain", lambda settings, *_: trained.append(settings)
    )
    monkeypatch.setattr("align_keras.runs.inputs.check_pretraining", lambda _: None)
    monkeypatch.setattr("align_keras.runs.tuning_length.count_pairs", lambda _: 1_000)
    flags = ["--model=RUN", "--train-data=DIR"]
    assert run_recipe_here("finetune_retrieval.py", *flags) is None
    line = "--batch-size=32 and --steps=1324, chosen for 1,000 training pairs; the paper uses 2,048"
    assert line in capsys.readouterr().err
    assert run_recipe_here("finetune_retrieval.py", *flags, "--steps=7") is None
    # If an experiment is given, its values are used.
    flags.append("--experiment=finetune_flickr30k")
    assert run_recipe_here("finetune_retrieval.py", *flags) is None
    assert "chosen" not in capsys.readouterr().err.replace("chosen for 1,000", "", 1)
    assert [(one.model.model, one.run.batch_size, one.run.steps) for one in trained] == [
        ("RUN", 32, 1_324),
        ("RUN", 32, 7),
        ("RUN", 2_048, 3_000),
    ]
