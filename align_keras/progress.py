"""Shows the progress of a command on standard error: its current work, its rate, the time left.

A terminal gets bars. Other outputs, such as a file, get a line from time to time, at growing
intervals, so that logs stay readable. Waits of a few seconds are not shown. Outside a command
(``shown``), only training is shown, since programs that use the library did not ask for output.

The working code only counts. A thread reads the counts and draws.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

from align_keras import progress_drawing as drawing

_Item = TypeVar("_Item")

# In seconds: shorter waits are not shown, except the first message of a command.
_PATIENCE, _FIRST_SIGN = 3.0, 1.0
# Seconds between two readings of the counts.
_LOOK = 0.25


class Bar:
    """A wait whose progress is shown; ends with its ``with`` block or by ``close``.

    Args:
        what: what is being done, such as ``embedding images``.
        total: total amount of work; None if it is unknown.
        unit: the unit that is counted, in the singular; empty if nothing is counted.
        done: amount done before the start.
        stays: whether a terminal keeps the bar after the end.

    Attributes:
        done: amount done; the working code increases it.
        first: amount done before the start, which does not count for the rate.
        note: further text to show, such as the loss.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "",
        done: int = 0,
        stays: bool = False,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.stays, self.note = stays, ""
        self.first, self.started = done, time.monotonic()
        # Seconds spent in waits inside this one, and the start of the current one.
        self._inside, self._entered = 0.0, math.nan
        self._drawn = drawing.TerminalBar(self) if drawing.is_terminal() else drawing.LogLines(self)
        _screen.add(self)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Calls ``close``."""
        self.close()

    def enter_other(self) -> None:
        """Stops this bar's clock while another wait inside it is shown, such as an evaluation."""
        self._entered = time.monotonic()

    def leave_other(self) -> None:
        """Lets the clock run again."""
        if self.is_paused:
            self._inside += time.monotonic() - self._entered
            self._entered = math.nan

    @property
    def is_paused(self) -> bool:
        """Whether another wait inside this one is shown."""
        return not math.isnan(self._entered)

    def worked(self, now: float) -> float:
        """Seconds since the start without the waits inside this one."""
        return (self._entered if self.is_paused else now) - self.started - self._inside

    def is_due(self, patience: float) -> bool:
        """Whether the wait has lasted this many seconds."""
        return time.monotonic() - self.started >= patience

    def draw(self) -> None:
        """Shows the progress; in a file, only if a line is due."""
        with drawing.unless_gone():
            self._drawn.draw(time.monotonic())

    def close(self) -> None:
        """Ends the wait; may be called repeatedly."""
        if _screen.remove(self):
            with drawing.unless_gone():
                self._drawn.close(time.monotonic())


class _Screen:
    """The open waits, and the thread that draws them."""

    def __init__(self) -> None:
        self.is_shown = False
        self._open: list[Bar] = []
        # Shown for a command until it shows something else.
        self._start: Bar | None = None
        # Reentrant, since a signal may raise inside a method and close the open waits.
        self._lock = threading.RLock()
        self._ended = threading.Event()

    def begin(self, what: str) -> None:
        """Shows what a command does, unless it soon shows something else."""
        self.is_shown, self._start = True, Bar(what)

    def add(self, bar: Bar) -> None:
        """Starts drawing a bar."""
        with self._lock:
            if self._open:
                self._open[-1].enter_other()
            self._open.append(bar)
            if len(self._open) == 1:
                self._ended = threading.Event()
                threading.Thread(target=self._draw, args=[self._ended], daemon=True).start()

    def is_open(self, what: str) -> bool:
        """Whether a wait of this name is being drawn."""
        return any(bar.what == what for bar in self._open)

    def remove(self, bar: Bar) -> bool:
        """Stops drawing a bar; False if it was not being drawn."""
        with self._lock:
            if bar not in self._open:
                return False
            self._open.remove(bar)
            if self._open:
                self._open[-1].leave_other()
            if not self._open:
                self._ended.set()
            return True

    def _draw(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOK):
            with self._lock:
                if not ended.is_set():
                    self._draw_all()

    def _draw_all(self) -> None:
        for bar in list(self._open):
            if bar is self._start:
                if len(self._open) == 1 and bar.is_due(_FIRST_SIGN):
                    bar.draw()
            elif bar.is_due(_FIRST_SIGN if self._start else _PATIENCE):
                self.begun()
                bar.draw()

    def begun(self) -> None:
        """Removes the first message, since the command has shown something."""
        with self._lock:
            if self._start is not None:
                start, self._start = self._start, None
                start.close()

    def close(self) -> None:
        """Closes the open waits, last one first."""
        with self._lock:
            self._start = None
            for bar in self._open[::-1]:
                bar.close()


_screen = _Screen()


@contextlib.contextmanager
def shown(what: str) -> Iterator[None]:
    """Inside the block, the waits of a command are shown.

    Args:
        what: the first message, shown if nothing else appears within a second.
    """
    _screen.begin(what)
    try:
        yield
    finally:
        _screen.is_shown = False
        _screen.close()


def close() -> None:
    """Closes all bars, before the line that a command ends with."""
    _screen.close()


def is_shown() -> bool:
    """Whether waits are shown. If not, work that serves only the display can be left out."""
    return _screen.is_shown


def bar(what: str, total: int | None = None, unit: str = "", **options: Any) -> Any:
    """A ``Bar``; outside a command, one that shows nothing."""
    if _screen.is_shown:
        return Bar(what, total, unit, **options)
    return _Silent()


def watch(
    items: Iterable[_Item], what: str, unit: str, total: int | None = None
) -> Iterable[_Item]:
    """Yields the items and counts them on a ``Bar``, which takes the other arguments."""
    return _watched(items, what, unit, total) if _screen.is_shown else items


def _watched(items: Iterable[_Item], what: str, unit: str, total: int | None) -> Iterator[_Item]:
    with Bar(what, total, unit) as own:
        for item in items:
            yield item
            own.done += 1


def working(what: str) -> Any:
    """A context for work that cannot be counted, such as tracing."""
    return bar(what)


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """A wait that a line announces at once; silent inside a wait of the same name."""
    if _screen.is_open(what):
        yield
        return
    tell(what)
    with working(what):
        yield


def tell(line: str) -> None:
    """Shows a line, above the bars."""
    _screen.begun()
    with drawing.unless_gone():
        if "tqdm" in sys.modules and drawing.is_terminal():
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            drawing.print_line(line)


class _Silent:
    """Replaces a ``Bar`` that is not shown."""

    done, note = 0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass
