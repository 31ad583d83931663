"""Recognises the texts that SQL handles exactly as Python does.

DuckDB and Python use Unicode tables of different years, and different rules for lower case. SQL
therefore has no definition of a unigram of its own. Both are tested on every character, and a
caption with a character that they treat differently is left to Python.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

from align_keras.data import paper_rules

# Emoji and rare scripts are above it. Testing all of the million characters would take a second.
_END = 0x10000
_SURROGATES = range(0xD800, 0xE000)
_CHARACTERS = [chr(code) for code in range(_END) if code not in _SURROGATES]
# JSON escapes control characters. Python's lower case of a final sigma depends on the characters
# before it; no other letter has such a rule.
_LEFT_TO_PYTHON = {*map(chr, range(0x20)), "\u03a3"}
# A caption that begins with a bracket may be a list written as text.
_BRACKETS = "(["


@dataclasses.dataclass(frozen=True)
class PlainTexts:
    """Regular expressions in RE2's syntax, which pyarrow and DuckDB share."""

    caption: str
    """Matches a usable caption that is not a list, has no outer white space, and whose unigrams
    according to ``paper_rules`` are the matches of ``unigram``.
    """
    image: str
    """Matches an image id that JSON writes unchanged, except for quotes and backslashes."""
    unigram: str
    """Matches each unigram of a lower-cased plain caption."""


def plain_texts(database: Any) -> PlainTexts:
    """The texts that a DuckDB connection handles as this version of Python does."""
    codes = f"range({_END}) AS codes(code) WHERE code NOT BETWEEN {_SURROGATES[0]} AND "
    lower = f"SELECT lower(chr(code::INTEGER)) FROM {codes}{_SURROGATES[-1]} ORDER BY code"
    return _plain_texts(tuple(letter for (letter,) in database.execute(lower).fetchall()))


@functools.cache
def _plain_texts(lowered: tuple[str, ...]) -> PlainTexts:
    pairs = zip(_CHARACTERS, lowered, strict=True)
    odd = _LEFT_TO_PYTHON | {own for own, lower in pairs if own.lower() != lower}

    def those(condition: Callable[[str], Any]) -> str:
        return _class(filter(condition, _CHARACTERS))

    def is_plain(letter: str) -> bool:
        return letter not in odd

    def is_end(letter: str) -> bool:
        return is_plain(letter) and not letter.isspace()

    def is_start(letter: str) -> bool:
        return is_end(letter) and paper_rules.has_words(letter) and letter not in _BRACKETS

    letters = those(re.compile(paper_rules.LETTER).match)
    solids = those(re.compile(paper_rules.SOLID).match)
    return PlainTexts(
        caption=rf"\A{those(is_start)}(?:{those(is_plain)}*{those(is_end)})?\z",
        image=r"\A[!-~](?:[ -~]*[!-~])?\z",
        unigram=paper_rules.unigram_pattern(letters, solids),
    )


def _class(letters: Iterable[str]) -> str:
    """A character class in RE2's syntax; the characters must be sorted."""
    runs = itertools.groupby(enumerate(map(ord, letters)), lambda item: item[1] - item[0])
    bounds = ([code for _, code in run] for _, run in runs)
    return "[" + "".join(rf"\x{{{run[0]:x}}}-\x{{{run[-1]:x}}}" for run in bounds) + "]"
