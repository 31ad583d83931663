"""Compares a classifier's confidence with its accuracy, as pure functions on arrays."""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """Predictions with similar confidence."""

    count: int
    confidence: float
    """Mean confidence; 0 if the bin is empty."""
    accuracy: float


def reliability(confidence: np.ndarray, right: np.ndarray, num_bins: int = 10) -> list[Bin]:
    """Groups predictions into bins of equal width by confidence (Guo et al., 2017).

    Args:
        confidence: probabilities of the predicted classes, ``(images,)``.
        right: whether each prediction is right, bool, ``(images,)``.
        num_bins: number of bins between 0 and 1.
    """
    places = np.minimum((np.asarray(confidence) * num_bins).astype(int), num_bins - 1)
    bins = []
    for place in range(num_bins):
        own = places == place
        count = int(own.sum())
        means = (float(values[own].mean()) if count else 0.0 for values in (confidence, right))
        bins.append(Bin(count, *means))
    return bins


def expected_error(bins: list[Bin]) -> float:
    """The expected calibration error: the weighted mean gap between confidence and accuracy."""
    total = sum(own.count for own in bins)
    return sum(own.count * abs(own.confidence - own.accuracy) for own in bins) / max(1, total)
