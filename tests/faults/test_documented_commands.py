"""The commands of `docs/` run in the order of the pages, and so do the examples after them."""

import signal
import time

import pytest
from command_runs import LIMIT
from documented import AFTER_COMMANDS, blocks_of, recipes_of
from documented_runs import SHORT, make_folder
from foreign_lines import foreign_lines

pytestmark = pytest.mark.faults

PAGES = (
    "data",
    "filtering",
    "training",
    "fine-tuning",
    "evaluation",
    "search",
    "serving",
    "damage",
)


def test_documented_commands_run(server, material, tmp_path):
    folder, output = tmp_path / "folder", tmp_path / "output.txt"
    folder.mkdir()
    make_folder(material, folder)
    done = []
    for page in PAGES:
        for block in blocks_of(f"docs/{page}.md"):
            for recipe, *arguments in () if block.marked else recipes_of(block):
                if [recipe, *arguments] in done:
                    continue
                done.append([recipe, *arguments])
                short = SHORT.get(recipe) or SHORT.get(f"{recipe} {arguments[0]}", "")
                call = (str(folder), recipe, *arguments, *short.split())
                process = server.start("documented_runs:run_recipe", *call, output=output)
                if "serve" in arguments:
                    end_page(process, output)
                    continue
                assert process.wait(LIMIT) == 0, (call, output.read_text(errors="replace"))
            if block.language == "python" and block.page in AFTER_COMMANDS:
                call = (str(folder), block.code)
                process = server.start("documented_runs:run_code", *call, output=output)
                assert process.wait(LIMIT) == 0, output.read_text(errors="replace")
    assert len(done) > 15
    assert foreign_lines(output.read_text(errors="replace")) == []


def end_page(process, output):
    """Waits until the page is served, then interrupts the command."""
    until = time.monotonic() + LIMIT
    while "http://" not in output.read_text(errors="replace"):
        assert not process.poll() and time.monotonic() < until, output.read_text(errors="replace")
        time.sleep(0.2)
    process.signal(signal.SIGINT)
    assert process.wait(LIMIT) in (0, 130)
