"""Modules that are imported when the first of their names is used.

Commands check settings and open data with them before TensorFlow loads, which takes seconds.
"""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from typing import Any

# Optional packages, which Keras imports if they are installed. That takes half as long as Keras.
_NOT_NEEDED = ("sklearn", "pandas", "IPython")


class Module:
    """Stands for a module until one of its names is used.

    It takes the place of an import at the top of a module::

        if TYPE_CHECKING:
            import tensorflow as tf
        else:
            tf = lazy.Module("tensorflow")

    Args:
        name: name of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # Not kept: tests and callers may replace the names of a module.
        module = sys.modules.get(self._name) or importlib.import_module(self._name)
        return getattr(module, name)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside the block, TensorFlow and Keras are imported in two thirds of the time.

    Packages that Keras takes where they are installed are hidden from it, and no garbage is looked
    for: modules stay. For commands alone, in which nothing else of Keras's is used.
    """
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        if collects:
            gc.freeze()
            gc.enable()
