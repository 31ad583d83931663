"""Keeps the lines of other libraries out of what is printed, all at this one place.

What fails is raised, and ends a command in one line; the libraries' own lines would stand around
it, tear the bars, and mostly say nothing that can be mended. A program gets none of TensorFlow's
where it imports this package first. ``TF_CPP_MIN_LOG_LEVEL`` in the
environment shows them all, Python's ``-W`` and ``PYTHONWARNINGS`` its warnings.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from align_keras import progress, signals

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# The hubs' clients read these when they are imported. One says each of a request's retries.
_OF_CLIENTS = {"HF_HUB_VERBOSITY": "error", "KAGGLEHUB_VERBOSITY": "error"}
# They have handlers of their own; the others' lines reach Python's last resort.
_LOGGERS = ("tensorflow", "absl", "tf2onnx")
_OWN = "align_keras"


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
        with signals.ending_at_once(kept):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    _hush()


def _hush() -> None:
    """Sets levels: of loggers that are there, since absl makes its own of a class of its own."""
    for variable, value in _OF_CLIENTS.items():
        os.environ.setdefault(variable, value)
    for name in _LOGGERS:
        if name in sys.modules:
            logging.getLogger(name).setLevel(logging.ERROR)
