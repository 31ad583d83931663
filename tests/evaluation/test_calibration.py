import numpy as np
import pytest

from align_keras.evaluation import calibration, zero_shot


def test_the_expected_error_weighs_the_gaps_of_the_bins():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 1.0])
    right = np.array([True, True, False, False, True, True])
    bins = calibration.reliability(confidence, right)
    assert [own.count for own in bins] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 5]
    assert bins[9][1:] == pytest.approx((0.96, 0.6))
    assert calibration.expected_error(bins) == pytest.approx((0.85 + 5 * 0.36) / 6)


def test_confidence_is_the_largest_of_a_softmax():
    logits = np.array([[2.0, 0.0, 1.0], [900.0, 0.0, 900.0]])
    first = np.exp(2) / (np.exp(2) + 1 + np.exp(1))
    assert zero_shot.confidence(logits) == pytest.approx([first, 0.5])
