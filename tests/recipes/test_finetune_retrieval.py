"""The command that fine-tunes for retrieval."""

import pytest
from in_process import run_recipe_here


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--train-data=x"], "--model: give the model to start from; a preset or a run"),
        (["--model=x"], "--experiment: finetune_flickr30k needs training data; give --train-data"),
        (
            ["--model=x", "--train-data=x", "--initial_temperature=1"],
            "--initial-temperature: a trained model brings its own; leave out",
        ),
        (["--model=x", "--experiment=none"], "--experiment: no 'none'; choose one of"),
        (["--model=/none", "--train-data=x"], "--model: /none: no such folder"),
    ],
)
def test_the_command_ends_in_one_line(flags, line):
    assert run_recipe_here("finetune_retrieval.py", *flags).startswith(
        f"finetune_retrieval.py: {line}"
    )


def test_settings_are_those_of_the_experiment(monkeypatch):
    trained = []
    monkeypatch.setattr(
        "align_keras.runs.pretraining.pretrain", lambda *given: trained.append(given)
    )
    monkeypatch.setattr("align_keras.runs.inputs.check_pretraining", lambda _: None)
    assert run_recipe_here("finetune_retrieval.py", "--model=RUN", "--train-data=DIR") is None
    ((settings, command),) = trained
    assert command == "python recipes/finetune_retrieval.py --model=RUN --train-data=DIR"
    assert (settings.model.model, settings.run.steps) == ("RUN", 3_000)
