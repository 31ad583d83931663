"""Shell completion of flags and choices: tyro's script, adapted to commands run by ``python``.

tyro completes programs that are called by their own names. Recipes are called as ``python
recipes/NAME.py``. In Bash, a function for ``python`` therefore passes on the words after it; zsh
does so itself.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from align_keras.errors import InputError
from align_keras.wording import choose

FLAG = "--completion"
SHELLS = ("bash", "zsh")

# Bash passes --flag=value as three words, but tyro expects --flag value. If nothing is known about
# a value, Bash completes file names.
_BASH = """
_align_keras_python() {
  local script="${COMP_WORDS[1]##*/}" own word place=-1 index
  [[ $COMP_CWORD -gt 1 && $script == *.py ]] || return
  own=$(complete -p -- "$script" 2>/dev/null) || return
  [[ $own =~ -F\\ (_tyro_[A-Za-z0-9_]+) ]] || return
  local words=()
  for index in "${!COMP_WORDS[@]}"; do
    word=${COMP_WORDS[index]}
    if [[ $index -gt 0 && ($word != "=" || $index -eq $COMP_CWORD) ]]; then
      [[ $word == "=" ]] && word=""
      words+=("$word")
      [[ $index -eq $COMP_CWORD ]] && place=$((${#words[@]} - 1))
    fi
  done
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$place
  "${BASH_REMATCH[1]}"
  [[ -n ${COMPREPLY[*]} ]] || COMPREPLY=()
}
complete -o default -o filenames -F _align_keras_python python python3
"""


def shell_of(arguments: Sequence[str]) -> str:
    """The shell given to ``--completion``; empty without that flag.

    Raises:
        InputError: if the shell is not supported.
    """
    for index, word in enumerate(arguments):
        name, has_value, shell = word.partition("=")
        if name != FLAG:
            continue
        if not has_value:
            shell = "".join(arguments[index + 1 : index + 2])
        if shell not in SHELLS:
            raise InputError(f"unknown shell {shell!r}", None, choose(shell, SHELLS), "completion")
        return shell
    return ""


def script(settings_class: Any, default: Any, shell: str) -> str:
    """The script with which a shell completes the flags of a recipe.

    Args:
        settings_class: as in ``command.parse``.
        default: as in ``command.parse``.
        shell: ``bash`` or ``zsh``.
    """
    options = {} if default is None else {"default": default}
    return _script(lambda args: tyro.cli(settings_class, args=args, **options), shell)


def script_of_commands(commands: Mapping[str, Any], shell: str) -> str:
    """Like ``script``, for a recipe with commands."""
    return _script(
        lambda args: tyro.extras.subcommand_cli_from_dict(dict(commands), args=args), shell
    )


def _script(parse: Callable[[list[str]], Any], shell: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "script"
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            parse(["--tyro-write-completion", shell, str(written)])
        text = written.read_text(encoding="utf-8")
    # tyro prints a flag and its description on one line, and would take a second line for another
    # flag.
    spec = next(line for line in text.splitlines() if line.startswith("COMPLETION_SPEC = "))
    text = text.replace(spec, spec.replace("\\n", " "))
    if shell == "bash":
        return text + _BASH
    # tyro writes a file that zsh loads from a folder; this text is sourced instead.
    text, _, _ = text.rpartition("typeset -A opt_args")
    function = "_tyro_" + "".join(c if c.isalnum() or c == "_" else "_" for c in sys.argv[0])
    return f"{text}compdef {function} {sys.argv[0]} {Path(sys.argv[0]).name}\n"
