"""Which texts SQL may judge: those that it handles exactly as Python does.

DuckDB and Python have tables of Unicode of different years, and other rules for lower case. So SQL
has no definition of a unigram of its own: both are asked about every character, and a caption with
one that they treat differently is left to Python.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

from align_keras.data import paper_rules

# Emoji and rare scripts lie above: asking about a million characters would take a second.
_END = 0x10000
_SURROGATES = range(0xD800, 0xE000)
_CHARACTERS = [chr(code) for code in range(_END) if code not in _SURROGATES]
# JSON escapes control characters. Python lower-cases a final sigma by what stands before it; that
# is its only rule of the kind.
_LEFT_TO_PYTHON = {*map(chr, range(0x20)), "\u03a3"}
# A caption that begins with one may be a list that is written as text.
_BRACKETS = "(["


@dataclasses.dataclass(frozen=True)
class PlainTexts:
    """Regular expressions in RE2's syntax, which pyarrow and DuckDB share."""

    caption: str
    """Matches a usable caption without outer white space for which ``unigram`` gives the unigrams
    of ``paper_rules``, and which is not a list."""
    image: str
    """Matches the id of an image that JSON writes as it is, but for quotes and backslashes."""
    unigram: str
    """Matches each unigram of a lower-cased plain caption."""


def plain_texts(database: Any) -> PlainTexts:
    """What a DuckDB connection handles as this version of Python does."""
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
    """A class of RE2 that holds these characters, which are in order."""
    runs = itertools.groupby(enumerate(map(ord, letters)), lambda item: item[1] - item[0])
    bounds = ([code for _, code in run] for _, run in runs)
    return "[" + "".join(rf"\x{{{run[0]:x}}}-\x{{{run[-1]:x}}}" for run in bounds) + "]"
