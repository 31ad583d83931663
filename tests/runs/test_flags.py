"""Facts about flags, all read from the class of settings."""

import dataclasses
from typing import Annotated, Literal

import tyro

from align_keras import paths
from align_keras.runs.flags import REQUIRED, WITHOUT_PREFIX, flag_of, flags_of, texts_of
from align_keras.runs.settings import COMMON, Heading


@dataclasses.dataclass(frozen=True)
class Group:
    steps: Annotated[int, COMMON] = 5
    """Of the group."""


@dataclasses.dataclass(frozen=True)
class Base:
    index: Annotated[str, paths.LOCAL]
    """Folder of the index."""


@dataclasses.dataclass(frozen=True)
class Own(Base):
    word: tyro.conf.Positional[str] = ""
    kind: Annotated[Literal["a", "b"] | None, Heading("kinds")] = None
    """Of which kind, in
    two lines."""
    many: tuple[Literal["x", "y"], ...] = ()
    exact: bool = False
    data: str = tyro.MISSING


@dataclasses.dataclass(frozen=True)
class Whole:
    name: str = "n"
    own: Annotated[Own, WITHOUT_PREFIX] = Own("i")
    head: Group = Group()
    flat: tyro.conf.OmitArgPrefixes[Group] = Group(7)


def test_flags_have_their_names_groups_and_defaults():
    flags = {flag.name: flag for flag in flags_of(Whole, Whole(head=Group(9)))}
    assert list(flags) == [
        *("name", "index", "word", "kind", "many", "exact", "data"),
        *("head.steps", "steps"),
    ]
    parts = [flag.part for flag in flags.values()]
    assert parts == ["", "own", "own", *["kinds"] * 4, "head", "flat"]
    assert (flags["head.steps"].default, flags["steps"].default) == (9, 7)
    assert (flags["index"].default, flags["name"].default) == ("i", "n")
    assert flag_of("head.batch_size") == "--head.batch-size"


def test_a_flag_knows_what_it_takes():
    flags = {flag.name: flag for flag in flags_of(Own)}
    assert [name for name, flag in flags.items() if flag.default is REQUIRED] == ["index", "data"]
    assert [name for name, flag in flags.items() if flag.is_common] == ["index", "data"]
    assert [name for name, flag in flags.items() if flag.is_positional] == ["word"]
    assert [name for name, flag in flags.items() if flag.is_path] == ["index"]
    assert [name for name, flag in flags.items() if flag.is_switch] == ["exact"]
    assert [name for name, flag in flags.items() if flag.takes_many] == ["many"]
    assert flags["kind"].choices == ("a", "b", "None")
    assert flags["many"].choices == ("x", "y")
    assert flags["index"].choices == ()
    assert flags["exact"].spellings() == ("exact", "no_exact")
    assert flags_of(Whole)[-1].is_common


def test_texts_are_those_below_the_fields_and_of_the_bases():
    assert texts_of(Own) == {
        "index": "Folder of the index.",
        "kind": "Of which kind, in two lines.",
    }
