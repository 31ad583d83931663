"""Runs a recipe in the process of the tests, which has already loaded TensorFlow."""

import contextlib
import io
import os
import runpy
import sys
import tempfile
from unittest import mock

from conftest import ROOT
from foreign_lines import foreign_lines


def run_recipe_here(name, *arguments):
    """Like ``run_recipe_plainly``, but fails if another library prints a line."""
    with printed_by_all() as printed:
        ended = run_recipe_plainly(name, *arguments)
    assert foreign_lines(printed.getvalue()) == []
    return ended


def run_recipe_plainly(name, *arguments):
    """Runs ``recipes/NAME`` as a command; returns its exit status: None, a code or a line."""
    arguments = [name, *map(str, arguments)]
    with mock.patch.object(sys, "argv", arguments):
        try:
            runpy.run_path(str(ROOT / "recipes" / name), run_name="__main__")
        except SystemExit as ended:
            return ended.code
    return None


class _Copied(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, stream, copy):
        self._stream, self._copy = stream, copy

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        self._copy.write(text)
        return self._stream.write(text)

    def flush(self):
        self._stream.flush()


@contextlib.contextmanager
def printed_by_all():
    """Collects Python's output and what C++ writes to standard error; both still appear."""
    printed, kept = io.StringIO(), os.dup(2)
    with (
        tempfile.TemporaryFile() as file,
        mock.patch.object(sys, "stdout", _Copied(sys.stdout, printed)),
        mock.patch.object(sys, "stderr", _Copied(sys.stderr, printed)),
    ):
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            written = file.read()
            os.write(2, written)
            printed.write(written.decode(errors="replace"))
