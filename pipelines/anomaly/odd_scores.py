"""Scores of good images that are unlike the others: these images may be no good ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import median_abs_deviation

from pipelines.anomaly.calibration import Calibration

ODD = 5.0  # standard deviations above the median, estimated without the tails; of Gaussian scores, one in three million
FEWEST = 20  # images that have a spread to speak of


def find_odd(scores: Sequence[float]) -> list[int]:
    """Positions of good images that score unlike the others, the highest first.

    Args:
        scores: Of good images, each by a model that has not seen it.

    >>> find_odd([0.1 * (number % 7) for number in range(30)] + [9.0])
    [30]
    """
    values = np.array(scores)
    if len(values) < FEWEST:
        return []
    above = values - np.median(values)
    spread = median_abs_deviation(values, scale="normal")
    order = np.argsort(-above, kind="stable")
    return [int(position) for position in order if above[position] > ODD * spread]


def warn_of_odd(calibration: Calibration, threshold: float | None, false_alarms: float | None) -> str:
    """Say that odd calibration images alone set a threshold, so that it hides defects; "" where they do not.

    Args:
        calibration: The scores.
        threshold: In use; None where there is none.
        false_alarms: The rate that it is for.
    """
    odd = [calibration.scores[position] for position in find_odd(calibration.scores)]
    if threshold is None or false_alarms is None or not odd or threshold < min(odd):
        return ""
    usual = calibration.with_scores(tuple(score for score in calibration.scores if score < min(odd)))
    if false_alarms < usual.smallest_rate:
        return ""
    count = "one calibration image that scores" if len(odd) == 1 else f"{len(odd)} calibration images that score"
    return (
        f"The threshold is set by {count} unlike the others. Without, it would be {usual.threshold(false_alarms):.4f}, "
        "and more defects would be found. Look at the images that training named. If they are not good, remove them "
        "and train again; or ask for more false alarms"
    )
