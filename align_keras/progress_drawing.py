"""Draws the waits of ``progress``: bars on a terminal, lines from time to time elsewhere."""

import collections
import contextlib
import sys
from typing import Any

from align_keras import wording

# Seconds between two lines in a file: a tenth of the time so far, within these limits.
_LEAST, _MOST = 10.0, 60.0
# Number of latest lines over which the rate is averaged.
_SMOOTHED = 5


class TerminalBar:
    """Draws a moving bar."""

    def __init__(self, bar: Any) -> None:  # a `progress.Bar`, whose module imports this one
        self._bar = bar
        self._own: Any = None

    def draw(self, now: float) -> None:
        """Opens or updates the bar."""
        import tqdm

        bar = self._bar
        if self._own is None:
            form = None if bar.unit else "{desc}: {elapsed}"
            self._own = tqdm.tqdm(
                desc=bar.what,
                total=bar.total,
                initial=bar.first,
                unit=f" {wording.plural(bar.unit)}",
                bar_format=form,
                leave=bar.stays,
                dynamic_ncols=True,
                miniters=1,
            )
            # The rate counts from the start of the wait.
            self._own.start_t -= now - bar.started
            self._own.last_print_t = self._own.start_t
        self._own.set_postfix_str(bar.note, refresh=False)
        if not self._own.update(bar.done - self._own.n):
            self._own.refresh()

    def close(self, now: float) -> None:
        """Removes the bar, or leaves its final state."""
        if self._bar.stays and self._bar.done > self._bar.first:
            self.draw(now)
        if self._own is not None:
            self._own.close()


class LogLines:
    """Writes a line from time to time."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        # Seconds of work and amount done at the latest lines, from which the rate is computed.
        self._latest = collections.deque([(0.0, bar.first)], maxlen=_SMOOTHED)
        self._next = bar.started
        self._lines = 0

    def draw(self, now: float) -> None:
        """Writes a line if one is due."""
        if now < self._next or self._bar.is_paused:
            return
        self._next = now + min(_MOST, max(_LEAST, (now - self._bar.started) / 10))
        print_line(self._line(now))
        self._latest.append((self._bar.worked(now), self._bar.done))
        self._lines += 1

    def _line(self, now: float) -> str:
        bar = self._bar
        if not bar.unit or bar.done == bar.first:
            return f"{bar.what}: {wording.duration(now - bar.started)} so far"
        # The rate is not taken since the start: the first step of a run is slow, and other programs
        # may slow down the machine for a while.
        worked = bar.worked(now)
        earlier = (one for one in self._latest if one[1] < bar.done)
        then, done = next(earlier, (0.0, bar.first))
        seconds, count = worked - then, bar.done - done
        speed = wording.rate(count, seconds, wording.plural(bar.unit))
        if bar.total is None or bar.done > bar.total:
            parts = [wording.counted(bar.done, bar.unit), speed]
        else:
            left = wording.duration(max(0, bar.total - bar.done) * seconds / count)
            parts = [f"{bar.done:,} of {wording.counted(bar.total, bar.unit)}", speed]
            parts.append(f"{left} left")
        return f"{bar.what}: {', '.join(parts)}" + (f"; {bar.note}" if bar.note else "")

    def close(self, now: float) -> None:
        """Writes the total time, if lines were written before."""
        bar = self._bar
        if not self._lines or not bar.unit or (bar.total is not None and bar.done < bar.total):
            return
        done = wording.counted(bar.done, bar.unit)
        note = f"; {bar.note}" if bar.note else ""
        print_line(f"{bar.what}: {done} in {wording.duration(now - bar.started)}{note}")


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def unless_gone() -> contextlib.AbstractContextManager:
    """Inside the block, a closed terminal does not stop the work."""
    return contextlib.suppress(OSError, ValueError)


def print_line(line: str) -> None:
    """Writes a line to standard error."""
    print(line, file=sys.stderr, flush=True)
