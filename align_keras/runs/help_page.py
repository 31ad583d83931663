"""The pages of ``--help``, at most a screen long, and of ``--help-all``.

tyro's own page shows all flags in one list, so this one is formatted by ``argparse``.
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from align_keras.runs import completion
from align_keras.runs.flags import REQUIRED, Flag, flag_of, texts_of
from align_keras.wording import counted

#: Flags that every command has.
HELP, HELP_ALL = "--help", "--help-all"
# Maximum width in columns; longer lines are hard to read.
_WIDEST = 100
# Maximum length of choices shown next to a flag in 80 columns; longer ones go into the text.
_LONGEST_CHOICES = 50
# Replaces hyphens, at which argparse would break lines.
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"
_SENTENCE = re.compile(r".*?\.(?= [A-Z]|$)")


def format_help(command: str, description: str, flags: Sequence[Flag], whole: bool) -> str:
    """The help of a command, formatted for the width of the terminal.

    Args:
        command: the command as typed, such as ``python recipes/pretrain.py``.
        description: paragraphs: what the command does, examples, and further text.
        flags: flags of the command.
        whole: if True, everything is shown. If False, only what fits a screen: what the command
            does, the examples, and the common flags, each with its first sentence.
    """
    is_cut = any(flag.is_common and flag.default is not REQUIRED for flag in flags)
    shown = [flag for flag in flags if whole or not is_cut or flag.is_common]
    if not whole:
        description = "\n\n".join(description.strip().split("\n\n")[:2])
    words = "".join(f" {flag.name.upper()}" for flag in flags if flag.is_positional)
    parser = _parser(f"{command}{words} [--flag=VALUE ...]", description)
    parser.epilog = f"{completion.FLAG}=bash or zsh prints completion for that shell."
    if not whole:
        parser.epilog = f"{HELP_ALL} shows all {counted(len(flags), 'flag')} in full."
    # Positional arguments come first, as in the usage line.
    shown.sort(key=lambda flag: not flag.is_positional)
    groups: dict[str, Any] = {}
    texts = {owner: texts_of(owner) for owner in {flag.owner for flag in shown}}
    for flag in shown:
        if flag.part not in groups:
            groups[flag.part] = parser.add_argument_group(flag.part or "flags")
        text = texts[flag.owner].get(flag.name.rpartition(".")[2], "")
        if not whole and (sentence := _SENTENCE.match(text)):
            text = sentence[0]
        _add(groups[flag.part], flag, text)
    return parser.format_help().replace(_UNBROKEN, "-")


def format_commands(command: str, description: str, commands: Mapping[str, type]) -> str:
    """The help of a recipe that has several commands.

    Args:
        command: the command as typed.
        description: as in ``format_help``.
        commands: for each command, its class of settings, whose docstring describes it.
    """
    parser = _parser(f"{command} COMMAND [--flag=VALUE ...]", description)
    group = parser.add_argument_group("commands")
    for name, settings in commands.items():
        first = _SENTENCE.match(" ".join((settings.__doc__ or "").split()))
        group.add_argument(name, help=first[0] if first else "")
    parser.epilog = f"COMMAND {HELP} shows the flags of a command."
    return parser.format_help()


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    width = min(shutil.get_terminal_size().columns, _WIDEST) - 2
    # Examples are indented and are not wrapped.
    paragraphs = [
        text if text.startswith(" ") else textwrap.fill(text, width, break_on_hyphens=False)
        for text in description.replace("``", "").strip().split("\n\n")
    ]
    return argparse.ArgumentParser(
        prog="",
        usage=usage,
        description="\n\n".join(paragraphs),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=26, width=width
        ),
        add_help=False,
    )


def _add(group: Any, flag: Flag, text: str) -> None:
    if flag.choices and _is_long(flag):
        text += f" One of {', '.join(flag.choices)}."
    if flag.default is REQUIRED:
        text += " (required)"
    elif flag.default is not None and flag.default is not False and flag.default not in ("", ()):
        text += f" (default: {_shown(flag.default)})"
    text = text.strip().replace("-", _UNBROKEN).replace("%", "%%")
    if flag.is_positional:
        group.add_argument(flag.name, metavar=flag.name.upper(), help=text)
    elif flag.is_switch:
        group.add_argument(_switch(flag), action="store_true", help=text)
    else:
        many: Any = {"nargs": "*"} if flag.takes_many else {}
        group.add_argument(flag_of(flag.name), metavar=_metavar(flag), help=text, **many)


def _switch(flag: Flag) -> str:
    group, dot, own = flag_of(flag.name)[2:].rpartition(".")
    return f"--{group}{dot}[no-]{own}"


def _metavar(flag: Flag) -> str:
    if flag.choices and not _is_long(flag):
        return "{" + ",".join(flag.choices) + "}"
    if flag.choices:
        return "NAME"
    for kind, name in ((int, "INT"), (float, "FLOAT")):
        if kind in flag.kinds:
            return name
    return "PATH" if flag.is_path else "TEXT"


def _is_long(flag: Flag) -> bool:
    return len(",".join(flag.choices)) > _LONGEST_CHOICES


def _shown(value: object) -> str:
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
