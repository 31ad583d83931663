"""The code blocks of the README and of `docs/`, and the test that runs each of them.

A block is either run by the tests, or the paragraph before it gives the reason: `*Not run: ...*`.
"""

import dataclasses
import re
import shlex

from conftest import ROOT

PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")))
#: Pages whose Python blocks take long or need the output of commands; `tests/faults` runs them.
AFTER_COMMANDS = ("docs/fine-tuning.md", "docs/pretrained-towers.md", "docs/serving.md")
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"\*Not run: .+\*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page, its language, its text, and whether it is marked as not run."""

    page: str
    language: str
    code: str
    marked: bool


def blocks_of(page):
    """Returns the blocks of a page in order."""
    text = (ROOT / page).read_text()
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        found.append(Block(page, match[1], match[2], bool(_MARK.fullmatch(before))))
    return found


def lines_of(code):
    """Returns the command lines of a block; continued lines are joined."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def recipes_of(block):
    """Returns the recipes that a block calls, each as a list of its name and its arguments."""
    start = ".venv/bin/python recipes/"
    lines = [line for line in lines_of(block.code) if line.startswith(start)]
    return [shlex.split(line.removeprefix(start)) for line in lines]
