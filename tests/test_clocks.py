"""Tests that change a clock must change it for only one module."""

import re

from conftest import ROOT

# Setting an attribute of the module ``time`` changes the clock of the whole process: servers and
# other threads may then wait for hours. A test replaces the ``time`` of one module instead.
WHOLE_PROCESS = re.compile(r"setattr\((?:\w+\.)?time, |setattr\(\"(?:\w+\.)?time\.")


def test_no_test_changes_the_clock_of_the_whole_process():
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in sorted((ROOT / "tests").rglob("*.py"))
        for match in WHOLE_PROCESS.finditer(file.read_text())
    ]
    assert not found, "\n".join(found)


def test_such_a_change_is_seen():
    for change in ('line_files.time, "monotonic"', 'time, "sleep"', '"time.sleep"'):
        assert WHOLE_PROCESS.search(f"monkeypatch.setattr({change}")
    assert not WHOLE_PROCESS.search('monkeypatch.setattr(progress, "time"')
