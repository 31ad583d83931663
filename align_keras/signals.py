"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

Only commands handle these signals, from ``end_at_once`` on and inside ``handled``. Notebooks, and
programs that import the package, are not affected. Importing this module loads neither TensorFlow
nor Keras.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from align_keras.errors import InputError

#: Each signal, with the last message of a command that it ends.
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "hung up (SIGHUP)",
}
# Programs that forward signals, such as a shell and the terminal, may send one signal twice.
_SECONDS_OF_ONE = 0.25


class Interrupted(KeyboardInterrupt):
    """A signal has asked the process to end.

    It is a KeyboardInterrupt, so that code that cleans up after Ctrl-C does so after every signal.

    Args:
        number: number of the signal.
        problem: the message of the command; empty for that in ``SIGNALS``.

    Attributes:
        outcome: what has been saved and how to continue, set by ``explaining``. It may name
            settings as ``<workdir>``.
    """

    def __init__(self, number: int, problem: str = "") -> None:
        super().__init__(problem or SIGNALS[signal.Signals(number)])
        self.exit_code = 128 + number
        self.outcome = ""

    def describe(self, name_of: Callable[[str], str] = str) -> str:
        """The message in one line, as in ``InputError.describe``."""
        return InputError(str(self), remedy=self.outcome).describe(name_of)


class _State:
    """State of the signal handler."""

    name = "align_keras"
    """Name of the command; error lines begin with it."""
    at_once = True
    """Whether a signal ends the process immediately, without cleaning up."""
    is_deferred = False
    """Whether a signal is only recorded."""
    received: int | None = None
    """Number of the first signal."""
    standard_error = 2
    """The file descriptor of standard error."""
    terminals: tuple[int, ...] = ()
    """File descriptors that write to a terminal."""


_state = _State()


def end_at_once() -> None:
    """From now until ``handled``, a signal ends the process with one line.

    While a command's imports run, there is nothing to clean up. An exception would print a stack
    trace, or look like a failed import.
    """
    _state.name = os.path.basename(sys.argv[0])
    if _is_main_thread():
        _install()


@contextlib.contextmanager
def handled(name: str) -> Iterator[None]:
    """Inside the block, a signal raises ``Interrupted`` in the main thread.

    A second signal ends the process at once, even while the main thread waits for TensorFlow. A
    signal that is ignored, such as SIGHUP under ``nohup``, stays ignored. At the end, the previous
    handlers are restored. Outside the main thread, no signals are handled.

    Args:
        name: name of the command; error lines begin with it.
    """
    if not _is_main_thread():
        yield
        return
    before = vars(_state).copy()
    _state.name, _state.at_once, _state.received = name, False, None
    _state.terminals = tuple(number for number in (1, 2) if os.isatty(number))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = _install()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
        vars(_state).clear()
        vars(_state).update(before)


def take_back() -> None:
    """Reinstalls the handlers of ``handled`` after TensorFlow has replaced one.

    TensorFlow's strategies for several machines replace the handler of SIGTERM by one in C++.
    Python does not notice the change, and the new handler only records the signal.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _handle and _is_main_thread():
            signal.signal(number, _handle)


@contextlib.contextmanager
def ending_at_once(standard_error: int | None = None) -> Iterator[None]:
    """Used inside ``handled``: inside the block, a signal ends the process as in ``end_at_once``.

    Args:
        standard_error: the file descriptor for the line; None for the previous one.
    """
    before = _state.at_once, _state.standard_error
    _state.at_once = True
    if standard_error is not None:
        _state.standard_error = standard_error
    try:
        yield
    finally:
        _state.at_once, _state.standard_error = before


@contextlib.contextmanager
def writing_to(standard_error: int) -> Iterator[None]:
    """Used inside ``handled``: inside the block, another file descriptor is standard error."""
    before = _state.standard_error, _state.terminals
    _state.standard_error = standard_error
    _state.terminals = tuple(standard_error if own == 2 else own for own in _state.terminals)
    try:
        yield
    finally:
        _state.standard_error, _state.terminals = before


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside the block, a signal is only recorded; call ``stop_requested`` or ``check`` for it."""
    _state.is_deferred = True
    try:
        yield
    finally:
        _state.is_deferred = False
    check()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Used inside ``deferred`` for work that need not be saved: a signal raises ``Interrupted``."""
    before, _state.is_deferred = _state.is_deferred, False
    try:
        check()
        yield
    finally:
        _state.is_deferred = before


def stop_requested() -> bool:
    """Whether a signal has asked the process to stop."""
    return _state.received is not None


def check() -> None:
    """Raises ``Interrupted`` if a signal has asked the process to stop."""
    if stop_requested():
        raise interrupt()


def interrupt() -> Interrupted:
    """The exception for the signal that has asked the process to stop."""
    assert _state.received is not None
    return Interrupted(_state.received)


@contextlib.contextmanager
def explaining(outcome: Callable[[], str]) -> Iterator[None]:
    """Inside the block, an ``Interrupted`` without an ``outcome`` gets this one."""
    try:
        yield
    except Interrupted as stop:
        stop.outcome = stop.outcome or outcome()
        raise


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install() -> dict[int, Any]:
    """Installs the handler unless a signal is ignored; returns the previous handlers by number."""
    previous: dict[int, Any] = {}
    for number in SIGNALS:
        handler = signal.getsignal(number)
        # None means a handler that was not installed from Python.
        if handler not in (signal.SIG_IGN, None):
            previous[number] = signal.signal(number, _handle)
    return previous


def _handle(number: int, _: FrameType | None) -> None:
    if number == signal.SIGHUP:
        _leave_terminals()
    if _state.at_once:
        _end(number, SIGNALS[signal.Signals(number)])
    if _state.received is None:
        _state.received = number
        if not _state.is_deferred:
            raise Interrupted(number)


def _watch(reader: int) -> None:
    """Ends the process at the second signal.

    The system writes the number of each signal to a pipe immediately. The handler above, in
    contrast, runs only when the main thread returns from a training step, or from waiting for
    another worker.
    """
    first = 0.0
    while numbers := os.read(reader, 1):
        # Other code, such as the server of a page, may have installed its own handlers.
        if numbers[0] not in SIGNALS or signal.getsignal(numbers[0]) is not _handle:
            continue
        now = time.monotonic()
        if first and now - first > _SECONDS_OF_ONE:
            _end(numbers[0], "second signal: ended at once")
        first = first or now


def _end(number: int, problem: str) -> None:
    with contextlib.suppress(OSError):
        os.write(_state.standard_error, f"{_state.name}: {problem}\n".encode())
    os._exit(128 + number)


def _leave_terminals() -> None:
    """Discards output to a closed terminal, since an error of a progress bar would end the run."""
    for number in _state.terminals:
        if not os.isatty(number):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
