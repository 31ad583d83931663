"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

Only commands handle them, from ``end_at_once`` and within ``handled``. In notebooks and in programs
that import the package nothing changes. Importing this module loads neither TensorFlow nor Keras.
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

#: Each signal, and what a command says that it ended with.
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "hung up (SIGHUP)",
}
# Programs that forward signals, such as a shell and the terminal, send one signal twice.
_SECONDS_OF_ONE = 0.25


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    It is a KeyboardInterrupt, so that what cleans up after Ctrl-C does so after every signal.

    Args:
        number: number of the signal.
        problem: what a command says; empty for what ``SIGNALS`` has.

    Attributes:
        outcome: what is kept and how to continue, once ``explained``. It may name settings as
            ``<workdir>``.
    """

    def __init__(self, number: int, problem: str = "") -> None:
        super().__init__(problem or SIGNALS[signal.Signals(number)])
        self.exit_code = 128 + number
        self.outcome = ""

    def describe(self, name_of: Callable[[str], str] = str) -> str:
        """The message in one line, as ``InputError.describe``."""
        return InputError(str(self), remedy=self.outcome).describe(name_of)


class _State:
    """State of the signal handler."""

    name = "align_keras"
    """Name of the command; error lines begin with it."""
    at_once = True
    """Whether a signal ends the process without cleaning up."""
    is_deferred = False
    """Whether a signal is only noted."""
    received: int | None = None
    """The first signal."""
    standard_error = 2
    """A descriptor of standard error."""
    terminals: tuple[int, ...] = ()
    """Descriptors that write to a terminal."""


_state = _State()


def end_at_once() -> None:
    """Makes a signal end the process in one line, from now until ``handled``.

    While a command's imports run there is nothing to clean up, and an exception would be a stack
    trace, or be taken for a failed import.
    """
    _state.name = os.path.basename(sys.argv[0])
    if _is_main_thread():
        _install()


@contextlib.contextmanager
def handled(name: str) -> Iterator[None]:
    """Inside, a signal raises ``Interrupted`` in the main thread; a second one ends the process.

    The second one does so at once, also while the main thread waits for TensorFlow. A signal that
    is ignored, as SIGHUP is below ``nohup``, stays so. Afterwards the handlers of before are back.
    Outside the main thread nothing is handled.

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
    """Takes back the signals of ``handled`` from TensorFlow.

    Its strategies of several machines put a handler of their own, in C++, in the place of that of
    SIGTERM. Python does not know of it, and it only notes the signal.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _handle and _is_main_thread():
            signal.signal(number, _handle)


@contextlib.contextmanager
def ending_at_once(standard_error: int | None = None) -> Iterator[None]:
    """Within ``handled``, as ``end_at_once``.

    Args:
        standard_error: the descriptor to write the line to; None for that of before.
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
    """Within ``handled``, standard error is another descriptor, and no terminal is at 2."""
    before = _state.standard_error, _state.terminals
    _state.standard_error = standard_error
    _state.terminals = tuple(standard_error if own == 2 else own for own in _state.terminals)
    try:
        yield
    finally:
        _state.standard_error, _state.terminals = before


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal is only noted: the work asks ``stop_requested`` where it can end."""
    _state.is_deferred = True
    try:
        yield
    finally:
        _state.is_deferred = False
    check()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within ``deferred``, work of which nothing is to be kept: a signal raises ``Interrupted``."""
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
    """Inside the block, an ``Interrupted`` that has no ``outcome`` gets this one."""
    try:
        yield
    except Interrupted as stop:
        stop.outcome = stop.outcome or outcome()
        raise


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install() -> dict[int, Any]:
    """Installs the handler where the signal is not ignored; the handlers of before, by number."""
    previous: dict[int, Any] = {}
    for number in SIGNALS:
        handler = signal.getsignal(number)
        # None is a handler that was not installed from Python.
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

    The system writes the number of each signal to a pipe at once, while the handler above waits
    until the main thread is back from a training step, or from another worker that does not answer.
    """
    first = 0.0
    while numbers := os.read(reader, 1):
        # Others may have installed their own handlers, such as the server of a page.
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
    """Leads what is written to a closed terminal nowhere: an error of a progress bar ends a run."""
    for number in _state.terminals:
        if not os.isatty(number):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
