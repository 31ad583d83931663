import ast
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from align_keras import signals

QUICK = {"ALIGN_KERAS_IMPORT": "lazy", "PYTHONPATH": str(ROOT)}


def tell(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted; go on with name"),
        (signal.SIGTERM, 143, "terminated (SIGTERM); go on with name"),
        (signal.SIGHUP, 129, "hung up (SIGHUP); go on with name"),
    ],
)
def test_a_signal_is_an_interrupt_with_its_own_code(number, code, line):
    before = [signal.getsignal(own) for own in signals.SIGNALS]
    with (
        pytest.raises(KeyboardInterrupt) as raised,
        signals.handled("x.py"),
        signals.explaining(lambda: "another"),
        signals.explaining(lambda: "go on with <name>"),
    ):
        tell(number)
    assert raised.value.exit_code == code
    assert raised.value.describe() == line
    assert [signal.getsignal(own) for own in signals.SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_deferred_work_ends_where_it_asks():
    with signals.handled("x.py"):
        with pytest.raises(signals.Interrupted, match="SIGTERM"), signals.deferred():
            signals.check()
            tell(signal.SIGTERM)
            tell(signal.SIGTERM)  # may be the same signal, forwarded by another program
            assert signals.stop_requested()
            signals.check()
        # The signal also counts if `check` is never called.
        with pytest.raises(signals.Interrupted), signals.deferred():
            pass
    assert not signals.stop_requested()
    signals.check()


def test_in_deferred_work_a_part_may_end_anywhere():
    with signals.handled("x.py"), pytest.raises(signals.Interrupted), signals.deferred():
        with pytest.raises(signals.Interrupted), signals.interruptible():
            tell(signal.SIGTERM)
        with pytest.raises(signals.Interrupted), signals.interruptible():
            pass  # the signal came before the block


def test_a_signal_that_is_ignored_stays_so():
    """For example, nohup ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled("x.py"):
            tell(signal.SIGHUP)
            assert not signals.stop_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_a_library_puts_in_its_place_is_replaced():
    """TensorFlow sets such a handler for several workers, without Python's knowledge."""
    c_library = ctypes.CDLL(None)
    c_library.signal.argtypes, c_library.signal.restype = (ctypes.c_int, ctypes.c_void_p), None
    with signals.handled("x.py"):
        c_library.signal(signal.SIGTERM, 1)  # SIG_IGN
        tell(signal.SIGTERM)
        assert not signals.stop_requested()
        signals.take_back()
        with pytest.raises(signals.Interrupted):
            tell(signal.SIGTERM)


def test_outside_the_main_thread_nothing_is_handled():
    found = []

    def run():
        with signals.handled("x.py"):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_terminal_that_closes_ends_no_run():
    """Otherwise the progress bar would raise an error before the checkpoint is saved."""
    script = (
        "import os, sys, align_keras\n"
        "from align_keras import signals\n"
        "own, users = os.openpty()\n"
        "os.dup2(users, 2), os.close(users)\n"
        "with signals.handled('x.py'), signals.deferred():\n"
        "    os.close(own)\n"
        "    os.kill(os.getpid(), 1)\n"
        "    print('bar', file=sys.stderr, flush=True)\n"
        "    print('saved', flush=True)\n"
        "    os._exit(0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **QUICK}, stdout=subprocess.PIPE
    )
    assert (result.returncode, result.stdout) == (0, b"saved\n")


def test_imports_end_in_one_line_and_a_second_signal_at_once():
    """A second signal ends the process even while the main thread is inside TensorFlow."""
    scripts = {
        "import align_keras, os\nos.kill(os.getpid(), 2)": (130, "-c: interrupted\n"),
        "import align_keras, signal, sys\n"
        "from align_keras import signals\n"
        "with signals.handled('x.py'), signals.deferred():\n"
        # The main thread never runs the handler, as if it were in C++.
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [15])\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()": (143, "x.py: second signal: ended at once\n"),
    }
    for script, expected in scripts.items():
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, **QUICK},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        if "deferred" in script:
            process.send_signal(signal.SIGTERM)
            time.sleep(1.0)
            process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=60)
        assert (process.returncode, printed) == expected


def test_recipes_handle_signals_before_they_import_other_packages():
    commands = 0
    for path in (ROOT / "recipes").glob("*.py"):
        text = path.read_text()
        names = []
        for node in ast.parse(text).body:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append(node.module)
        others = [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
        if "ALIGN_KERAS_IMPORT" in text:
            # The experiments import this package first.
            assert others[0].split(".")[0] in ("align_keras", "experiments"), path
            commands += 1
    assert commands == 10
