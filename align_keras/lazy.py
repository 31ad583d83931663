"""Modules that are imported when one of their names is first used.

Commands thus check settings and open data before TensorFlow loads, which takes seconds.
"""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator
from typing import Any

# Optional packages that Keras imports if they are installed, which adds half of Keras's import
# time.
_NOT_NEEDED = ("sklearn", "pandas", "IPython")
#: What a command shows while it imports TensorFlow, Keras and everything that needs them.
LOADING = "loading TensorFlow"


class Module:
    """Stands for a module until one of its names is used.

    It replaces an import at the top of a module::

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
        # Not stored, since tests and callers may replace names in the module.
        module = sys.modules.get(self._name) or importlib.import_module(self._name)
        return getattr(module, name)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside the block, importing TensorFlow and Keras takes two thirds of the usual time.

    Optional packages that Keras would import are hidden, and garbage collection is paused, since
    modules are not garbage. Only for commands, which use no other parts of Keras.
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
