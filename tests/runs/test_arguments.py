"""Mistakes in arguments; test_thirty_mistakes.py has the messages of all recipes."""

import dataclasses
from typing import Annotated, Literal

import pytest
import tyro

from align_keras import paths
from align_keras.errors import InputError
from align_keras.runs import arguments
from align_keras.runs.flags import flags_of


@dataclasses.dataclass(frozen=True)
class Query:
    text: tyro.conf.Positional[str] = ""
    exact: bool = False
    weight: float = 2.0
    size: int | None = None
    fast: bool | None = None
    without: str = ""
    kind: Literal["one", "other"] = "one"
    prompts: tuple[str, ...] = ()
    data: Annotated[str, paths.DATA] = ""


def check(*words):
    arguments.check(words, flags_of(Query))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a dog"],
        ["--exact", "a dog"],
        ["--weight", "-0.5", "a dog"],
        ["--weight=-inf", "--size=None", "--fast=True", "--kind", "other"],
        ["--no-exact", "--size", "1_000"],
        ["--prompts", "a {}", "photo of a {}", "--without=--a"],
        ["--without=", "--data=a,b"],
        ["--weight=1", "--", "--a dog"],
    ],
)
def test_what_can_be_parsed_is_no_mistake(words):
    check(*words)
    assert tyro.cli(Query, args=words)


@pytest.mark.parametrize(
    ("words", "setting", "message"),
    [
        (["--exat"], "", "unknown flag --exat; did you mean exact?"),
        (["--no-exat"], "", "unknown flag --no-exat; did you mean no_exact?"),
        (["--zzz=1"], "", "unknown flag --zzz; help_all lists the flags"),
        (["--exact=no"], "exact", "takes no value, not 'no'; give exact or no_exact"),
        (["--size=many"], "size", "'many' is not a whole number; give one such as size=100"),
        (["--fast=yes"], "fast", "unknown value 'yes'; choose one of True, False, None"),
        (
            ["--kind=another"],
            "kind",
            r"unknown value 'another'; did you mean other\? choose one of one, other",
        ),
        (
            ["--kind", "one", "other", "one"],
            "kind",
            "3 values instead of one: one other one",
        ),
        (["--data"], "data", "it needs a value; give data=PATH"),
        (["--without", "a", "b", "c"], "without", '3 values .*; quote .*: without="a b c"'),
        (["--data", "d/a-1.x", "d/a-2.x", "d/b.x"], "data", r"d/a-1.x to d/b.x; quote .*'d/\*.x'"),
        (["a", "red", "dog", "--exact"], "", '3 words instead of one text; quote it: "a red dog"'),
        (
            ["--exact", "a", "dog"],
            "",
            "'a' belongs to no flag; give each value directly after its flag",
        ),
    ],
)
def test_a_mistake_names_what_was_found_and_what_to_do(words, setting, message):
    with pytest.raises(InputError, match=message) as raised:
        check(*words)
    assert raised.value.setting == setting


def test_a_command_that_does_not_exist_is_named():
    assert arguments.choose_command("index", ["index", "query"]) == "index"
    with pytest.raises(InputError, match="unknown command 'qury'; did you mean query?"):
        arguments.choose_command("qury", ["index", "query"])
    for first in ("", "--model=x"):
        with pytest.raises(InputError, match="no command; begin with one of index, query"):
            arguments.choose_command(first, ["index", "query"])
