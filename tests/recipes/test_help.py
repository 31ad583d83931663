"""The help of every recipe: one screen of common flags, and a page with all flags."""

import ast
import re
import runpy
import shlex

import experiments
import pytest
from conftest import ROOT
from documented import lines_of
from in_process import run_recipe_here

from align_keras.runs import arguments
from align_keras.runs.classification_settings import ClassificationSettings
from align_keras.runs.flags import flag_of, texts_of
from align_keras.runs.pretraining_settings import PretrainSettings

RECIPES = {path.name for path in (ROOT / "recipes").glob("*.py")} - {"experiments.py"}
COMMANDS = [[name] for name in sorted(RECIPES)]
COMMANDS += [["search.py", name] for name in ("index", "query", "evaluate", "serve")]
#: The lines of a screen, and a few more for texts that grow.
MOST_LINES = 45


def examples_of(recipe):
    """The commands in the docstring of a recipe, as their words after ``python recipes/``."""
    text = ast.get_docstring(ast.parse((ROOT / "recipes" / recipe).read_text()))
    lines = [line.strip() for line in lines_of(text) if line.startswith("    ")]
    assert all(line.startswith("python recipes/") for line in lines), lines
    return [shlex.split(line.removeprefix("python recipes/")) for line in lines]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_is_a_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run_recipe_here(*command, "--help") in (None, 0)
    # The first line has the path of the recipe, which is long in a test.
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith("usage: ")
    assert len(lines) < MOST_LINES
    assert max(map(len, lines)) <= 80
    # The client has few flags, and search.py has commands instead of flags.
    if command not in (["serving_client.py"], ["search.py"]):
        assert re.fullmatch(r"--help-all shows all \d+ flags? in full\.", lines[-1])


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [("pretrain.py", PretrainSettings), ("finetune_classification.py", ClassificationSettings)],
)
def test_the_long_help_says_all_of_every_flag_in_groups(
    recipe, settings, columns, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run_recipe_here(recipe, "--help-all") is None
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    for name, value in {"experiment": "", **settings().flat()}.items():
        group, dot, own = flag_of(name)[2:].rpartition(".")
        negation = "[no-]" if isinstance(value, bool) else ""
        assert re.search(rf"^  --{re.escape(group + dot + negation + own)}\b", printed, re.M)
    for part, value in vars(settings()).items():
        assert f"\n\n{part}:\n" in printed
        for name, text in texts_of(type(value)).items():
            assert text in words or name == "experiment"
    # Examples, which precede the first group, are not wrapped.
    groups = printed.partition("\n\nexperiment:\n")[2]
    assert max(map(len, groups.splitlines())) <= columns


def test_the_short_help_has_the_flags_that_are_marked(capsys):
    assert run_recipe_here("pretrain.py", "--experiment=products_nano", "-h") is None
    printed = capsys.readouterr().out
    shown = re.findall(r"^  --([a-z-]+)", printed, re.MULTILINE)
    assert shown[:4] == ["experiment", "train-data", "eval-data", "model"]
    assert {"batch-size", "steps", "workdir"} < set(shown)
    assert "shuffle-buffer" not in shown
    # The help shows the experiment's defaults, and only the first sentence of each text.
    assert "(default: 3,000)" in printed
    assert "No evaluation" not in printed


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_examples_are_commands_that_work(recipe, monkeypatch):
    class ReadError(Exception):
        pass

    def check_and_stop(*given):
        check(*given)
        raise ReadError

    check = arguments.check
    monkeypatch.setattr(arguments, "check", check_and_stop)
    examples = examples_of(recipe)
    assert 1 <= len(examples) <= 5
    for name, *words in examples:
        assert name == recipe
        if recipe == "serving_client.py":
            parse = runpy.run_path(str(ROOT / "recipes" / recipe), run_name="client")["parse"]
            assert parse(words)
            continue
        with pytest.raises(ReadError):
            run_recipe_here(name, *words)


def test_the_experiments_are_choices(capsys):
    assert run_recipe_here("finetune_classification.py", "--help") is None
    assert f"{{{','.join(experiments.CLASSIFICATION)}}}" in capsys.readouterr().out
    assert run_recipe_here("pretrain.py", "--help") is None
    words = " ".join(capsys.readouterr().out.split())
    assert f"One of {', '.join(experiments.PRETRAINING)}." in words
