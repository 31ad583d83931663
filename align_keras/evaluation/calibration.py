"""Whether a classifier is as often right as it claims, as pure functions on arrays."""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """Predictions with about the same confidence."""

    count: int
    confidence: float
    """Their mean; 0 if there are none."""
    accuracy: float


def reliability(confidence: np.ndarray, right: np.ndarray, num_bins: int = 10) -> list[Bin]:
    """Predictions in bins of equal width by their confidence (Guo et al., 2017).

    Args:
        confidence: probabilities of the predicted classes, ``(images,)``.
        right: bool, ``(images,)``.
        num_bins: between 0 and 1.
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
    """The expected calibration error: the bins' gaps between confidence and accuracy, weighted."""
    total = sum(own.count for own in bins)
    return sum(own.count * abs(own.confidence - own.accuracy) for own in bins) / max(1, total)
