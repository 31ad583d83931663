"""Runs a recipe in the process of the tests, where TensorFlow is loaded already."""

import runpy
import sys
from unittest import mock

from conftest import ROOT


def run_recipe_here(name, *arguments):
    """Runs ``recipes/NAME`` as a command; returns what it ends with: None, a code or a line."""
    arguments = [name, *map(str, arguments)]
    with mock.patch.object(sys, "argv", arguments):
        try:
            runpy.run_path(str(ROOT / "recipes" / name), run_name="__main__")
        except SystemExit as ended:
            return ended.code
    return None
