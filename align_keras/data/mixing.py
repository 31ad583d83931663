"""Which of several sources a position of the training order belongs to.

Sources are split off one by one: of n positions that are left, the first source with weight ``w``
among ``rest`` gets ``w x n / rest``, rounded, and the others are split in turn. So the records of a
source before any position follow from the position alone, and differ from its share by less than
one.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from align_keras import lazy
from align_keras.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf
else:
    # Weights are read before TensorFlow loads.
    tf = lazy.Module("tensorflow")

#: Products of two numbers below it are exact in int64.
_MOST = 1 << 31
_WEIGHT = re.compile(r"(.*\.(?:tfrecord|gz)|.*[*?\]])=([^=,/*?\]]*)")


class Source(NamedTuple):
    """Shards that are read in an order of their own."""

    shards: Sequence[str]
    """Their paths."""
    weight: int
    """Above 0; its share of the pairs is that of the sum of all weights."""


def split_weights(text: str) -> list[tuple[str, Fraction | None]]:
    """The patterns of a text such as ``a/*.tfrecord=2,b/*.tfrecord=1``, with their weights.

    None for a weight that is not given. A text without weights is one pattern.

    Raises:
        InputError: if a weight is not a number above 0.
    """
    parts = text.split(",")
    found = [_WEIGHT.fullmatch(part) for part in parts]
    if not any(found):
        return [(text, None)]
    return [
        (match[1], _weight(match[1], match[2])) if match else (part, None)
        for part, match in zip(parts, found, strict=True)
    ]


def whole_weights(weights: Sequence[Fraction]) -> list[int]:
    """Whole numbers in the same proportions.

    Raises:
        InputError: if they are too large to be counted with exactly.
    """
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    whole = [number // math.gcd(*whole) for number in whole]
    if sum(whole) >= _MOST:
        raise InputError("the weights have too many digits", remedy="give rounder weights")
    return whole


def counts_before(position: Any, weights: Sequence[int]) -> list[Any]:
    """The records of each source before a position: of ints, NumPy arrays or int64 tensors."""
    left, rest, counts = position, sum(weights), []
    for weight in weights:
        # Whole rounds apart: the products stay exact.
        own = left // rest * weight + (left % rest * weight * 2 + rest) // (2 * rest)
        counts.append(own)
        left, rest = left - own, rest - weight
        if not rest:
            break
    return counts


def source_of(position: "tf.Tensor", weights: Sequence[int]) -> "tf.Tensor":
    """The number of the source of a position, int64 as ``position`` is."""
    before = tf.stack(counts_before(position, weights))
    after = tf.stack(counts_before(position + 1, weights))
    return tf.argmax(after - before)


def _weight(pattern: str, text: str) -> Fraction:
    try:
        weight = Fraction(text)
    except (ValueError, ZeroDivisionError):
        weight = Fraction(0)
    if weight <= 0:
        raise InputError(
            f"the weight {text!r} of {pattern!r} is not a number above 0",
            remedy="give 2, say",
        )
    return weight
