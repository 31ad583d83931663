"""The rule, shared by all optimizers, for which weights get decay and layer adaptation."""

import re
from collections.abc import Iterable

import keras

# Names that Keras gives to biases and to the scales and offsets of normalisation layers.
_OFFSETS_AND_SCALES = re.compile(r"(.+_)?bias|gamma|beta")


def is_kernel(variable: keras.Variable, exclusions: Iterable[str] = ()) -> bool:
    """Whether a variable is a kernel or an embedding table that no exclusion matches.

    Biases, the scales and offsets of normalisation layers, and scalars such as the temperature do
    not count as kernels. The shape alone does not decide: the biases of Keras's attention have two
    dimensions, ``(heads, head_dim)``, so the name counts as well.

    Args:
        variable: a variable of a built model.
        exclusions: regular expressions, searched for in the variable's path.
    """
    if len(variable.shape) < 2 or _OFFSETS_AND_SCALES.fullmatch(variable.name):
        return False
    return not any(re.search(expression, variable.path) for expression in exclusions)
