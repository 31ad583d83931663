"""Hides the lines that other libraries print. This is the only place that does so.

If a command fails, it ends with one line. Lines of other libraries would surround this line and
break the progress bars, and most of them report nothing that a user can repair. A program
that imports this package first sees no lines of TensorFlow. ``TF_CPP_MIN_LOG_LEVEL`` in the
environment shows all lines; Python's ``-W`` and ``PYTHONWARNINGS`` show its warnings.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from align_keras import progress, signals

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# The hubs' clients read these on import. One of them logs every retry of a request.
_OF_CLIENTS = {"HF_HUB_VERBOSITY": "error", "KAGGLEHUB_VERBOSITY": "error"}
# Loggers with handlers of their own; lines of other loggers reach Python's last resort.
_LOGGERS = ("tensorflow", "absl", "tf2onnx")
_OWN = "align_keras"
# Lines that C and C++ libraries print whatever the log level: non-fatal log lines, and messages of
# libjpeg and libpng about damaged images. Such an image either raises an error or decodes anyway.
_NOISE = "|".join(
    (
        "^[IWE][0-9]{4} [0-9:.]+ ",
        "^[0-9-]{10} [0-9:.]+: [IWE] ",
        "^WARNING: All log messages before absl",
        "(Corrupt JPEG data|Premature end of JPEG|Input file read error|Not a JPEG file|libpng )",
        "(Invalid|Inconsistent|Unsupported|Bogus|Unknown|Improper|Empty).*(JPEG|SOS|marker|Huffman|DC)",
        "(Huffman|Quantization|Arithmetic) table 0x[0-9a-f]+ was not defined",
        "(Unsupported marker type|Invalid component ID|progression|Adobe color|JFIF revision)",
        "^INFO: (Created TensorFlow Lite|Initialized TensorFlow Lite)",
        "^nanobind: |^ - (leaked|... skipped)",
    )
)


def _shows_all() -> bool:
    # A notebook hides everything, and passes this setting on to the commands that it runs.
    return os.environ.get(_LEVEL, "3") != "3"


@contextlib.contextmanager
def python_libraries() -> Iterator[None]:
    """Inside the block, other Python libraries log only errors; this package logs as usual."""
    if _shows_all():
        yield
        return
    _hush()
    before = logging.lastResort, warnings.showwarning
    logging.lastResort = _LastResort(logging.WARNING)  # type: ignore[assignment]
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
    try:
        yield
    finally:
        logging.lastResort, warnings.showwarning = before


@contextlib.contextmanager
def c_libraries() -> Iterator[None]:
    """Inside the block, a filter removes lines that C libraries write to file descriptor 2.

    Python's own lines bypass it. The filter is a separate process, so that it still prints the
    reason when this process is aborted.
    """
    grep = shutil.which("grep")
    if _shows_all() or grep is None or not _is_plain(sys.stderr):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    filtering = subprocess.Popen(
        [grep, "--line-buffered", "-a", "-v", "-E", _NOISE],
        stdin=subprocess.PIPE,
        stdout=kept,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C must not end the filter before this process
    )
    assert filtering.stdin is not None
    os.dup2(filtering.stdin.fileno(), 2)
    filtering.stdin.close()
    before = sys.stderr
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors)
    try:
        with signals.writing_to(kept):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)  # closes the filter's input
        with contextlib.suppress(subprocess.TimeoutExpired):
            filtering.wait(1)
        sys.stderr.close()
        sys.stderr = before


def _is_plain(stream: Any) -> bool:
    """Whether a stream writes to file descriptor 2, unlike those of notebooks and some tests."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


class _LastResort(logging.Handler):
    """Shows log lines of this package, and errors of other libraries, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record; a hook of Python's logging."""
        if record.name.startswith(_OWN) or record.levelno >= logging.ERROR:
            progress.tell(self.format(record))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside the block, where TensorFlow is imported, output to file descriptor 2 is discarded.

    TensorFlow's libraries write to it during the import, without using ``sys.stderr``, and whatever
    the value of ``TF_CPP_MIN_LOG_LEVEL``.
    """
    if _shows_all():
        yield
        return
    # A warning for each corrupt image would break the bars. Some lines that are marked as errors
    # report no error, for example those about ops that oneDNN does not support.
    os.environ[_LEVEL] = "3"
    _hush()
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with signals.ending_at_once(kept if _is_plain(sys.stderr) else None):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    _hush()


def _hush() -> None:
    """Sets the levels of existing loggers, since absl must create its own logger itself."""
    for variable, value in _OF_CLIENTS.items():
        os.environ.setdefault(variable, value)
    # A warning of tqdm in a notebook kernel without ipywidgets, where it draws text bars instead.
    warnings.filterwarnings("ignore", message="IProgress not found")
    for name in _LOGGERS:
        if name in sys.modules:
            logging.getLogger(name).setLevel(logging.ERROR)
