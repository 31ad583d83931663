"""The command of this process, in the form shown on a card."""

import re
import shlex
import sys
from collections.abc import Sequence

# The folders of an absolute path in a flag, or of one in a list of paths: all but the last two
# names.
_FOLDERS = re.compile(r"(^|[=,])/(?:[^/,=]*/)+(?=[^/,=]*/[^/,=]+)")


def command_line(arguments: Sequence[str] | None = None) -> str:
    """``python recipes/pretrain.py --steps=5``, without the folders of this machine.

    Args:
        arguments: the recipe's path and flags; None for those of the process.
    """
    recipe, *flags = sys.argv if arguments is None else arguments
    shown = [_FOLDERS.sub(r"\1", flag) for flag in flags]
    return shlex.join(["python", "/".join(recipe.rsplit("/", 2)[-2:]), *shown])
