"""How many good images a threshold of calibration flags today, by the scores of the folder itself.

A test of ranks sees that all good images score a little otherwise. It does not see that a tenth of them now lies above
the threshold, since the tail is few images, and since defects, which are no drift, lie there, too. Where the folder's
good images lie (`folder_scale`) says how many of them are above it, and calibration images drawn again say how many
chance alone would put there.
"""

from __future__ import annotations

import numpy as np

from pipelines.anomaly.drift import FEWEST, mann_whitney, without_high
from pipelines.anomaly.folder_scale import FEWEST_IMAGES, HIGH, LOW, Floats, find_lines

MUCH_MORE = 2.0  # times the rate that was asked: less is no reason to give up its promise
CHANCE = 0.98  # quantile of the share in unchanged folders
LEAST_SIGN = 0.2  # p-value of the ranks of usual scores: many defects alone lift the share, but hardly these
DRAWS, MOST_DRAWN = 60, 1_000  # unchanged folders, and images of each


def find_excess(scores: Floats, calibration: Floats, threshold: float, asked: float) -> float | None:
    """Estimate the share of good images above a threshold, if it is far more than was asked and than chance explains.

    The share is the smaller one of two: all images are taken for good at first, or few (`find_lines`). Defects lift
    the first, so that a folder with many of them is not taken for a changed one.

    Args:
        scores: (N,), of a folder's images.
        calibration: (n,), of good images.
        threshold: Of calibration.
        asked: Share of good images that may be above it, in (0, 1).

    Returns:
        The share; None where it is no cause for alarm, or cannot be told.

    Source: Efron 2004, as in `folder_scale`; Efron and Tibshirani 1993, "An introduction to the bootstrap", section 6,
    for chance.
    """
    if len(scores) < FEWEST_IMAGES or len(calibration) < FEWEST:
        return None
    share = _estimate(scores, calibration, threshold)
    if share <= MUCH_MORE * asked or mann_whitney(*without_high(scores, calibration))[1] > LEAST_SIGN:
        return None
    random, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        usual = random.choice(calibration, min(len(calibration), MOST_DRAWN))
        folder = random.choice(calibration, min(len(scores), MOST_DRAWN))
        drawn.append(_estimate(folder, usual, float(np.quantile(usual, 1 - asked))))
    return share if share > np.quantile(drawn, CHANCE) else None


def _estimate(scores: Floats, calibration: Floats, threshold: float) -> float:
    if np.quantile(calibration, HIGH) <= np.quantile(calibration, LOW):
        return 0.0
    lines = find_lines(scores, calibration)
    return min(float((line.move + line.stretch * calibration > threshold).mean()) for line in lines)
