"""One reader of images with captions or a class, whatever they are kept in.

``open_examples`` gives an ``ExampleSet`` of ``Example``s; a kind of source is a module. No rule
and no packing: what becomes of examples is decided above.
"""

from align_keras.data.examples.example import Example
from align_keras.data.examples.example_set import ExampleSet
from align_keras.data.examples.opening import open_examples, open_images

__all__ = ["Example", "ExampleSet", "open_examples", "open_images"]
