"""Training data from several weighted sources: their shards and shares."""

from collections.abc import Mapping
from fractions import Fraction

from align_keras.data import mixing, records
from align_keras.errors import concerning
from align_keras.wording import counted


def find_shards(text: str) -> list[str]:
    """Like ``records.find_shards``, for patterns that may have weights."""
    found = (records.find_shards(pattern) for pattern, _ in mixing.split_weights(text))
    return sorted({shard for own in found for shard in own})


def opened(text: str, counts: Mapping[str, int]) -> list[mixing.Source]:
    """The sources of a text with weights, which are printed; empty for a text without weights."""
    with concerning("train_data"):
        parts = mixing.split_weights(text)
        if all(weight is None for _, weight in parts):
            return []
        shards = [records.find_shards(pattern) for pattern, _ in parts]
        pairs = [sum(counts[shard] for shard in own) for own in shards]
        given = [
            Fraction(number) if weight is None else weight
            for (_, weight), number in zip(parts, pairs, strict=True)
        ]
        weights = mixing.whole_weights(given)
    for (pattern, _), number, weight, whole in zip(parts, pairs, given, weights, strict=True):
        share = whole / sum(weights)
        print(f"{pattern}: {counted(number, 'pair')}, weight {float(weight):g}, {share:.1%}")
    return [mixing.Source(*own) for own in zip(shards, weights, strict=True)]
