"""The output of waits, at times that the tests set."""

import io
import sys
import threading
from types import SimpleNamespace

import pytest

from align_keras import progress, progress_drawing


class Terminal(io.StringIO):
    """Records output like a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances; each step draws once, like the thread."""

    class Clock:
        now = 0.0

        def step(self, seconds):
            self.now += seconds
            progress._screen._draw_all()

    own = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: own.now))
    monkeypatch.setattr(progress, "_LOOK", 60.0)  # so that the thread draws nothing
    return own


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_file_gets_a_line_now_and_then_with_rate_and_time_left(clock, capsys):
    with progress.shown("starting"):
        progress.tell("loading")
        with progress.bar("embedding images", 5_000, "image") as bar:
            for _ in range(300):
                bar.done += 20
                clock.step(1.2)
                if bar.done == 5_000:
                    break
        lines = lines_of(capsys)
    assert lines[:3] == [
        "loading",
        "embedding images: 60 of 5,000 images, 16.7 images/s, 5 min left",
        "embedding images: 240 of 5,000 images, 16.7 images/s, 5 min left",
    ]
    assert lines[-1] == "embedding images: 5,000 images in 5 min"
    # Lines become rarer, so 300 seconds give fewer than 30.
    assert 10 < len(lines) < 25


def test_a_short_wait_shows_nothing_but_the_first_sign_of_a_command(clock, capsys):
    with progress.shown("reading data"):
        clock.step(0.5)
        assert lines_of(capsys) == []
        clock.step(0.6)
        assert lines_of(capsys) == ["reading data: 1 s so far"]
        with progress.working("tracing"):
            clock.step(1.1)
            progress.tell("here")
            clock.step(1.0)
            assert lines_of(capsys) == ["tracing: 1 s so far", "here"]
        with progress.working("drawing"):
            clock.step(2.9)
        assert list(progress.watch("abc", "reading", "file", 3)) == ["a", "b", "c"]
        assert lines_of(capsys) == []


def test_more_than_was_thought_and_an_unknown_total_have_no_time_left(clock, capsys):
    with progress.shown("starting"):
        progress.tell("")
        for total in (None, 2):
            with progress.bar("reading", total, "batch", done=1) as bar:
                bar.done, bar.note = 9, "3 unreadable"
                clock.step(4.0)
        assert lines_of(capsys)[1:4:2] == 2 * ["reading: 9 batches, 2.00 batches/s; 3 unreadable"]


def test_the_time_left_leaves_out_evaluations_and_uneven_steps(clock, capsys):
    with progress.shown("starting"):
        progress.tell("")
        with progress.bar("training", 1_000, "step") as bar:
            for step in range(1, 200):
                bar.done = step
                clock.step(1.5 if step % 2 else 0.5)
                if step == 100:
                    with progress.working("evaluating"):
                        for _ in range(30):
                            clock.step(10.0)
        lines = lines_of(capsys)
    evaluating = [place for place, line in enumerate(lines) if line.startswith("evaluating")]
    assert evaluating == list(range(evaluating[0], evaluating[-1] + 1))  # without gaps
    assert len(evaluating) > 5
    after = lines[evaluating[-1] + 1]
    assert after.startswith("training: 10")
    assert "1.0" in after or "0.9" in after
    assert "15 min left" in after  # 900 steps of one second


def test_what_is_announced_is_not_announced_again_inside(clock, capsys):
    with progress.shown("starting"):
        with progress.announced("loading"):
            clock.step(4.0)
            with progress.announced("loading"):
                clock.step(4.0)
            clock.step(4.0)
        assert lines_of(capsys) == ["loading", "loading: 4 s so far"]
        with progress.announced("loading"):
            pass
        assert lines_of(capsys) == ["loading"]


def test_a_terminal_gets_a_bar_that_goes_away(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown("starting"):
        with progress.bar("embedding", 50, "image") as bar, progress.working("tracing"):
            bar.done = 20
            clock.step(4.0)
            progress.tell("a line")
            bar.done = 30
            clock.step(4.0)
        drawn = terminal.getvalue()
    assert "embedding:  40%" in drawn and "20/50" in drawn and " images/s]" in drawn
    assert "tracing: 00:0" in drawn

    assert "a line\n" in drawn
    assert drawn.endswith("\r")  # the bars are erased


def test_outside_a_command_nothing_shows_and_items_are_the_same(clock, capsys):
    items = [1, 2]
    assert progress.watch(items, "reading", "file") is items
    with progress.bar("reading", 3, "file") as bar, progress.working("tracing"):
        bar.done += 1
        clock.step(100.0)
    assert lines_of(capsys) == []
    assert not progress.is_shown()


def test_what_is_open_is_closed_at_the_end_and_its_thread_ends(clock, capsys):
    with pytest.raises(KeyError), progress.shown("starting"):
        left = progress.bar("reading", 3, "file")
        iterator = iter(progress.watch([1, 2], "counting", "pair"))
        next(iterator)
        clock.step(5.0)
        raise KeyError
    assert progress._screen._open == [] and progress._screen._ended.is_set()
    capsys.readouterr()
    left.close()
    clock.step(100.0)
    assert list(iterator) == [2]
    assert lines_of(capsys) == []


def test_the_thread_draws_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOOK", 0.001)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    drawn = threading.Event()
    monkeypatch.setattr(progress_drawing, "print_line", lambda line: drawn.set())
    with progress.Bar("training", 3, "step"):  # is also shown outside commands
        assert drawn.wait(5)
    assert capsys.readouterr().err == ""
