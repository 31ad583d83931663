"""Completion in Bash after ``python``, with values after a space or ``=``."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from in_process import run_recipe_here

from align_keras.errors import InputError
from align_keras.runs import completion

TRIES = """
python pretrain.py --strate => --strategy
python pretrain.py --strategy  => auto cpu mirrored multi_worker tpu
python pretrain.py --strategy = mi => mirrored
.venv/bin/python pretrain.py --steps = 5 --experiment cc => cc3m_b3_mini
python search.py qu => query
python search.py query --without => --without --without-weight
python pretrain.py --workdir photo => photos
python pretrain.py --steps 5 =>
python other.py --st =>
""".strip().splitlines()
#: Splits a command line into words as Bash does: at spaces and at ``=``.
TRY = """
try() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _align_keras_python
  echo "${COMPREPLY[@]}"
}
"""


def test_bash_completes_flags_and_choices_behind_python(capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    scripts = []
    for name in ("pretrain.py", "search.py"):
        assert run_recipe_here(name, "--completion=bash") is None
        scripts.append(capsys.readouterr().out)
    lines = []
    for line in TRIES:
        typed = line.partition(" =>")[0].split(" ")
        lines.append("try " + " ".join(f"'{word}'" for word in typed))
    code = "\n".join([*scripts, TRY, *lines])
    # The script runs the python3 of PATH; pyenv's shim would take four times as long.
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash"],
        input=code,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not ended.stderr
    found = [
        f"{line.partition(' =>')[0]} => {answer}".rstrip()
        for line, answer in zip(TRIES, ended.stdout.splitlines(), strict=True)
    ]
    assert found == TRIES


def test_zsh_gets_a_function_for_the_recipe(capsys):
    assert run_recipe_here("search.py", "--completion", "zsh") is None
    printed = capsys.readouterr().out
    assert re.search(r"\ncompdef _tyro_\w+_search_py \S+/recipes/search.py search.py\n$", printed)
    assert "opt_args" not in printed


def test_a_shell_that_is_not_known_is_named():
    assert completion.shell_of(["--completion=zsh"]) == "zsh"
    assert completion.shell_of(["--completion", "bash"]) == "bash"
    assert completion.shell_of(["--steps=5"]) == ""
    with pytest.raises(InputError, match="unknown shell ''; choose one of bash, zsh") as raised:
        completion.shell_of(["--completion"])
    assert raised.value.setting == "completion"
    assert (ROOT / "docs" / "commands.md").read_text().count("--completion=") >= 2
