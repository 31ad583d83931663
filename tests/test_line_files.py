"""Files that grow by lines, on file systems that cannot append."""

from types import SimpleNamespace

import pytest

from align_keras import line_files, uploads
from align_keras.line_files import LineFile
from align_keras.remote_path import RemotePath

PATH = RemotePath("ram://lines/log.jsonl")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""
    now = [0.0]
    monkeypatch.setattr(line_files, "time", SimpleNamespace(monotonic=lambda: now[0]))
    PATH.unlink(missing_ok=True)
    return now


def test_lines_are_in_a_local_file_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("torn")
    file = LineFile(path)
    assert file.append("a")
    assert path.read_text() == "torn\na\n"
    file.flush()
    assert path.read_text() == "torn\na\n"


def test_lines_come_in_parts_and_all_with_a_flush(clock):
    file = LineFile(PATH)
    assert file.append("1")
    assert not file.append("2")
    assert PATH.read_text() == "1\n"
    clock[0] = 11.0
    assert file.append("3")
    assert PATH.read_text() == "1\n2\n3\n"
    file.append("4")
    file.flush()
    assert PATH.read_text() == "1\n2\n3\n4\n"
    again = LineFile(PATH)
    again.flush()  # nothing to write
    again.append("5")
    assert PATH.read_text() == "1\n2\n3\n4\n5\n"


def test_what_is_written_again_is_bounded(clock, monkeypatch):
    """With a line of 20 KiB per second for 1,000 seconds, at most 16 KiB per second are written."""
    written = []
    monkeypatch.setattr(uploads, "write", lambda _, text: written.append((clock[0], len(text))))
    file = LineFile(PATH)
    for second in range(1_000):
        clock[0] = float(second)
        file.append("x" * 20_479)
    total = sum(size for _, size in written)
    assert total <= (1_000 + written[-1][1] / 16_384) * 16_384
    assert [second for second, _ in written[:2]] == [0, 10]
    waited = written[-1][0] - written[-2][0]
    assert waited == pytest.approx(written[-2][1] / 16_384, abs=1.0)
