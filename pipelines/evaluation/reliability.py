"""How honest probabilities are: whether what is said to be so sure is right as often as that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15
Floats = NDArray[np.float64]


def count_by_confidence(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Floats:
    """Count answers by how sure they are.

    Args:
        confidence: (N,), probability of the answer given.
        right: (N,), whether it was right.

    Returns:
        (3, 15): answers, right ones, and the sum of their probabilities, in bins of equal width; those of parts add up.
    """
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    weights = (None, right.astype(np.float64), confidence.astype(np.float64))
    return np.stack([np.bincount(bins, weights=each, minlength=BINS).astype(np.float64) for each in weights])


def calibration_error(table: Floats) -> float:
    """Expected calibration error: how far the share of right answers is from the probability that they were given.

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", eq. 3, with 15 bins.

    >>> table = count_by_confidence(np.array([0.8, 0.8, 0.8, 0.8]), np.array([True, True, True, False]))
    >>> round(calibration_error(table), 3)
    0.05
    """
    answers, right, confidence = table
    return float(np.abs(right - confidence).sum() / answers.sum())
