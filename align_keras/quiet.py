"""Hides the lines that other libraries print. This is the only place that does so.

A failure is raised and ends a command in one line. Lines of other libraries would surround that
line and break the progress bars, and most of them name nothing that a user can mend. A program
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
# The hubs' clients read these when they are imported. One says each of a request's retries.
_OF_CLIENTS = {"HF_HUB_VERBOSITY": "error", "KAGGLEHUB_VERBOSITY": "error"}
# They have handlers of their own; the others' lines reach Python's last resort.
_LOGGERS = ("tensorflow", "absl", "tf2onnx")
_OWN = "align_keras"
# What C and C++ write past every level: log lines that are not fatal, and what libjpeg and libpng
# say of a damaged image, which is an error of its own or decodes all the same.
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
    # A notebook hides all, and hands that on to the commands that it runs.
    return os.environ.get(_LEVEL, "3") != "3"


@contextlib.contextmanager
def python_libraries() -> Iterator[None]:
    """Within, Python libraries neither warn nor log what is no error; the package's log shows."""
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
    """Inside the block, what C libraries write to file descriptor 2 passes a filter.

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
        start_new_session=True,  # Ctrl-C must not end it before this process
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
        os.dup2(kept, 2)  # the filter's input ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            filtering.wait(1)
        sys.stderr.close()
        sys.stderr = before


def _is_plain(stream: Any) -> bool:
    """Whether a stream writes to file descriptor 2: a notebook's and a test's may not."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


class _LastResort(logging.Handler):
    """Shows what the package logs, and others' errors, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Python's hook."""
        if record.name.startswith(_OWN) or record.levelno >= logging.ERROR:
            progress.tell(self.format(record))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Within, TensorFlow is imported and looks for devices while file descriptor 2 leads nowhere.

    TensorFlow's libraries write to it during the import, past ``sys.stderr`` and whatever
    ``TF_CPP_MIN_LOG_LEVEL`` says.
    """
    if _shows_all():
        yield
        return
    # A warning for each corrupt image would tear the bars, and not every line that its libraries
    # call an error is one, such as which ops oneDNN leaves to others.
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
    """Sets levels: of loggers that are there, since absl makes its own of a class of its own."""
    for variable, value in _OF_CLIENTS.items():
        os.environ.setdefault(variable, value)
    # tqdm's, in a notebook kernel without ipywidgets: it draws bars of text then.
    warnings.filterwarnings("ignore", message="IProgress not found")
    for name in _LOGGERS:
        if name in sys.modules:
            logging.getLogger(name).setLevel(logging.ERROR)
