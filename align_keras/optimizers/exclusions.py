"""Which weights get decay and layer adaptation: the one rule of all optimizers here."""

import re
from collections.abc import Iterable

import keras


def is_matrix(variable: keras.Variable, exclusions: Iterable[str] = ()) -> bool:
    """Whether a variable has two dimensions or more, and no exclusion matches its path.

    Such are kernels and tables of embeddings; biases, the scales and offsets of normalisation
    layers and the temperature are not.

    Args:
        variable: of a built model.
        exclusions: regular expressions.
    """
    return len(variable.shape) >= 2 and not any(re.search(e, variable.path) for e in exclusions)
