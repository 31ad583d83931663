"""Computes which of several sources a position of the training order belongs to.

Sources are split off one by one. If n positions are left, and ``rest`` is the sum of the remaining
weights, the first source with weight ``w`` gets ``w x n / rest`` of them, rounded. The others are
then split in the same way. The number of records that a source has before a position therefore
depends on the position alone, and differs from the source's exact share by less than one.
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
    # Weights are parsed before TensorFlow loads.
    tf = lazy.Module("tensorflow")

#: Products of two numbers below this bound are exact in int64.
_MOST = 1 << 31
_WEIGHT = re.compile(r"(.*\.(?:tfrecord|gz)|.*[*?\]])=([^=,/*?\]]*)")


class Source(NamedTuple):
    """Shards that are read in their own order."""

    shards: Sequence[str]
    """Paths of the shards."""
    weight: int
    """An integer above 0. Divided by the sum of all weights, it is the source's share of the pairs.
    """


def split_weights(text: str) -> Sequence[tuple[str, Fraction | None]]:
    """Parses a text such as ``a/*.tfrecord=2,b/*.tfrecord=1`` into patterns and weights.

    A text without weights is one pattern, with the weight None.

    Raises:
        InputError: if a weight is not a number above 0, or if only some patterns have one.
    """
    parts = text.split(",")
    found = [_WEIGHT.fullmatch(part) for part in parts]
    if not any(found):
        return [(text, None)]
    weighted = [(match[1], _weight(match[1], match[2])) for match in found if match]
    if len(weighted) < len(parts):
        part = parts[found.index(None)]
        raise InputError(
            f"{part!r} has no weight, but other patterns do", remedy=f"give {part + '=1'!r}"
        )
    return weighted


def whole_weights(weights: Sequence[Fraction]) -> list[int]:
    """Integers in the same proportions as the weights.

    Raises:
        InputError: if the integers are too large for exact counting.
    """
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    whole = [number // math.gcd(*whole) for number in whole]
    if sum(whole) >= _MOST:
        raise InputError("the weights have too many digits", remedy="give rounder weights")
    return whole


def counts_before(position: Any, weights: Sequence[int]) -> list[Any]:
    """Number of records of each source before a position: an int, NumPy array or int64 tensor."""
    left, rest, counts = position, sum(weights), []
    for weight in weights:
        # Whole rounds are counted separately, so that the products stay exact.
        own = left // rest * weight + (left % rest * weight * 2 + rest) // (2 * rest)
        counts.append(own)
        left, rest = left - own, rest - weight
        if not rest:
            break
    return counts


def source_of(position: "tf.Tensor", weights: Sequence[int]) -> "tf.Tensor":
    """Index of the source of a position; int64, like ``position``."""
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
            remedy="give a number such as 2",
        )
    return weight
