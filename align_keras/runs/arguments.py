"""Finds mistakes in the arguments of a command before they are parsed.

Each mistake is reported in one line that names what was found and what to do. Unknown flags and
values are reported with the nearest known one. Patterns and sentences without quotes, which the
shell has split, are recognised too.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from align_keras.errors import InputError
from align_keras.runs.flags import REQUIRED, Flag
from align_keras.wording import choose, listed, nearest

# A flag, or None before the first flag, and the words after it.
_Group = tuple[Flag | None, list[str]]


def check(arguments: Sequence[str], flags: Sequence[Flag]) -> None:
    """Checks that the arguments of a command fit its flags.

    Args:
        arguments: arguments of the command line.
        flags: flags of the command.

    Raises:
        InputError: if a flag is unknown or missing, or has a wrong value or a wrong number of
            values.
    """
    named = {name: flag for flag in flags for name in flag.spellings() if not flag.is_positional}
    # Words after -- are not flags.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    _check_names(arguments[:end], named)
    groups = [*_grouped(arguments[:end], named), (None, list(arguments[end + 1 :]))]
    _check_counts(groups, [flag for flag in flags if flag.is_positional])
    for flag, words in groups:
        if flag is not None and not flag.is_switch:
            for word in words if flag.takes_many else words[:1]:
                _check_value(flag, word)
    _check_missing(groups, flags)


def choose_command(name: str, names: Iterable[str]) -> str:
    """Returns the name of a command; raises an InputError if it does not exist."""
    known = list(names)
    if name in known:
        return name
    if not name or _is_flag(name):
        raise InputError("no command", remedy=f"begin with one of {listed(known)}")
    raise InputError(f"unknown command {name!r}", remedy=choose(name, known))


def _is_flag(word: str) -> bool:
    """Whether a word is a flag. ``-5`` and ``-inf`` are values."""
    stem = word.lstrip("-")
    if not word.startswith("-") or not stem[:1].isalpha():
        return False
    return word.startswith("--") or stem.lower() not in ("inf", "infinity", "nan")


def _name_of(word: str) -> str:
    """The setting of a flag."""
    return word.partition("=")[0].lstrip("-").replace("-", "_")


def _check_names(arguments: Sequence[str], named: Mapping[str, Flag]) -> None:
    wrong = [word.partition("=")[0] for word in arguments if _is_flag(word)]
    wrong = [word for word in wrong if not word.startswith("--") or _name_of(word) not in named]
    if not wrong:
        return
    near = [name for word in wrong for name in _nearest_flags(_name_of(word), named)]
    meant = ", ".join(f"<{name}>" for name in dict.fromkeys(near))
    remedy = f"did you mean {meant}?" if meant else "<help_all> lists the flags"
    raise InputError(f"unknown flag {', '.join(dict.fromkeys(wrong))}", remedy=remedy)


def _nearest_flags(name: str, named: Mapping[str, Flag]) -> list[str]:
    if near := nearest(name, named):
        return [near]
    # Flags of groups are matched by their last part: --steps for --head.steps and --full.steps.
    last = nearest(name, (one.rpartition(".")[2] for one in named))
    return [one for one in named if last and one.rpartition(".")[2] == last]


def _grouped(arguments: Sequence[str], named: Mapping[str, Flag]) -> list[_Group]:
    groups: list[_Group] = [(None, [])]
    for word in arguments:
        if _is_flag(word):
            flag = named[_name_of(word)]
            _, has_value, value = word.partition("=")
            if has_value and flag.is_switch:
                names = " or ".join(f"<{name}>" for name in flag.spellings())
                raise InputError(f"takes no value, not {value!r}", None, f"give {names}", flag.name)
            groups.append((flag, [value] if has_value else []))
        else:
            groups[-1][1].append(word)
    return groups


def _check_counts(groups: Sequence[_Group], positional: Sequence[Flag]) -> None:
    """Raises InputError for a flag without a value, and for words that belong to no flag."""
    room = sum(math.inf if flag.takes_many else 1 for flag in positional)
    for flag, words in groups:
        if flag is None or flag.is_switch:
            room -= len(words)
        elif flag.takes_many:
            continue
        elif words:
            room -= len(words) - 1
        else:
            raise InputError("it needs a value", remedy=_example(flag), setting=flag.name)
        if room < 0:
            raise _surplus(flag, words, positional)


def _surplus(flag: Flag | None, words: Sequence[str], positional: Sequence[Flag]) -> InputError:
    """The error about surplus words."""
    text = " ".join(words)
    if flag is None and positional:
        problem = f"{len(words)} words instead of one text"
        return InputError(problem, remedy=f'quote it: "{text}"')
    if flag is None or flag.is_switch:
        remedy = "give each value directly after its flag, as in --flag=VALUE"
        return InputError(f"{words[0]!r} belongs to no flag", remedy=remedy)
    problem = f"{len(words)} values instead of one"
    if flag.is_path:
        problem += f", {words[0]} to {words[-1]}"
        remedy = (
            "quote a pattern, so that the shell does not expand it: "
            f"<{flag.name}>='{_pattern(words)}'"
        )
    elif flag.choices or {int, float} & set(flag.kinds):
        problem += f": {text}"
        remedy = f"give <{flag.name}>={words[0]}"
    else:
        problem += f": {text}"
        remedy = f'quote a text with spaces: <{flag.name}>="{text}"'
    return InputError(problem, remedy=remedy, setting=flag.name)


def _check_missing(groups: Sequence[_Group], flags: Sequence[Flag]) -> None:
    given = {flag.name for flag, _ in groups if flag}
    needed = [flag for flag in flags if flag.default is REQUIRED and flag.name not in given]
    missing = [flag.name for flag in needed if not flag.is_positional]
    if missing:
        others = " and ".join(f"<{name}>" for name in missing[1:])
        remedy = f"so must {others}; see <help>" if others else "see <help>"
        raise InputError("must be given", remedy=remedy, setting=missing[0])
    if needed and not any(words for _, words in groups):
        raise InputError(f"{needed[0].name.upper()} must be given", remedy="see <help>")


def _pattern(words: Sequence[str]) -> str:
    """A pattern that matches the paths into which the shell has expanded one."""
    start = _common(words)
    end = _common([word[len(start) :][::-1] for word in words])[::-1]
    return f"{start}*{end}"


def _common(words: Sequence[str]) -> str:
    """The common prefix of all words."""
    first, last = min(words), max(words)
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in pairs)


def _check_value(flag: Flag, word: str) -> None:
    kinds = set(flag.kinds)
    if flag.choices:
        if word not in flag.choices:
            raise InputError(f"unknown value {word!r}", None, choose(word, flag.choices), flag.name)
        return
    is_none = word == "None" and type(None) in kinds
    for kind, noun in ((int, "whole number"), (float, "number")):
        if kind in kinds and not is_none and not _is(kind, word):
            raise InputError(f"{word!r} is not a {noun}", None, _example(flag), flag.name)


def _is(kind: type, word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True


def _example(flag: Flag) -> str:
    """An example of how to write a flag."""
    if flag.choices:
        return f"give <{flag.name}>={flag.choices[0]}"
    for kind, example in ((int, "100"), (float, "0.1")):
        if kind in flag.kinds:
            value = flag.default if isinstance(flag.default, (int, float)) else example
            return f"give one such as <{flag.name}>={value}"
    return f"give <{flag.name}>={'PATH' if flag.is_path else 'TEXT'}"
