"""Modules that are imported when the first of their names is used.

Commands check settings and open data with them before TensorFlow loads, which takes seconds.
"""

import importlib
import sys
from typing import Any


class Module:
    """Stands for a module until one of its names is used.

    It takes the place of an import at the top of a module::

        if TYPE_CHECKING:
            import tensorflow as tf
        else:
            tf = lazy.Module("tensorflow")

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # Not kept: tests and callers may replace the names of a module.
        module = sys.modules.get(self._name) or importlib.import_module(self._name)
        return getattr(module, name)
