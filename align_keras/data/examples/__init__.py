"""One reader of images with captions or a class, for every kind of source.

``open_examples`` returns an ``ExampleSet`` of ``Example``s. Each kind of source has a module.
Filtering and packing are not done here.

Names are imported on first use, so that commands can check tables before TensorFlow loads.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align_keras.data.examples.example import Example
    from align_keras.data.examples.example_set import ExampleSet
    from align_keras.data.examples.opening import open_examples, open_images

__all__ = ["Example", "ExampleSet", "open_examples", "open_images"]
_MODULES = {"Example": "example", "ExampleSet": "example_set"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'opening')}"), name)
