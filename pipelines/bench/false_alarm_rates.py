"""Recall at false-alarm rates: by the threshold that calibration sets, and at a rate that all rows have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.figures_of_merit import share_of
from pipelines.evaluation.defect_masks import GOOD

RATES = (0.01, 0.05)

Floats = NDArray[np.float64]


def is_good(path: str) -> bool:
    """Return whether a path below the test folder is of an image without defect."""
    return path.split("/", 1)[0] == GOOD


def recall_at(good: ArrayLike, bad: ArrayLike, rate: float) -> float:
    """Recall where exactly `rate` of the good images are flagged.

    Each good image's score is a threshold that flags a whole number of them. Between the two thresholds next to
    `rate`, recall is interpolated linearly: the expected recall of a draw between the two. It depends on ranks alone.

    Args:
        good: (N,) scores, higher = more abnormal; at least one.
        bad: (M,) scores; at least one.
        rate: In [0, 1].

    Returns:
        Share of the defective images that are flagged, in [0, 1].

    Source: Fawcett, "An introduction to ROC analysis" (2006), section 10, interpolation of classifiers.

    >>> (
    ...     recall_at([1.0, 2.0, 3.0, 4.0], [2.5, 4.5], 0.25),
    ...     recall_at([1.0, 2.0, 3.0, 4.0], [2.5, 4.5], 0.375),
    ... )
    (0.5, 0.75)
    """
    ones = np.ones((1, np.size(good))), np.ones((1, np.size(bad)))
    return float(recalls_at(np.sort(good), np.sort(bad), *ones, rate)[0])


def recalls_at(good: Floats, bad: Floats, good_counts: Floats, bad_counts: Floats, rate: float) -> Floats:
    """Return `recall_at` for many resamples of the same images.

    Args:
        good: (N,) ascending scores.
        bad: (M,) ascending scores.
        good_counts: (D, N), how often each good image is in each resample.
        bad_counts: (D, M), the same for defective images.
        rate: In [0, 1].

    Returns:
        (D,) recalls.
    """
    flagged_good = _share_above(good, good_counts, good)  # (D, N): by the score of each good image as the threshold
    flagged_bad = _share_above(bad, bad_counts, good)
    recalls = np.empty(len(good_counts))
    for draw, counts in enumerate(good_counts):
        drawn = counts > 0  # another image's score is no threshold of this resample
        # Rates rise as thresholds fall; the last point is where everything is flagged.
        rates = np.append(flagged_good[draw, drawn][::-1], 1.0)
        recalls[draw] = np.interp(rate, rates, np.append(flagged_bad[draw, drawn][::-1], 1.0))
    return recalls


def _share_above(scores: Floats, counts: Floats, thresholds: Floats) -> Floats:
    """Return the share (D, T) of weighted, ascending scores that are above each threshold."""
    below = np.pad(counts.cumsum(axis=1), ((0, 0), (1, 0)))
    share: Floats = 1 - below[:, np.searchsorted(scores, thresholds, side="right")] / below[:, -1:]
    return share


def measure_rates(scores: Mapping[str, float], calibration: Sequence[float] | None) -> dict[str, dict[str, Any]]:
    """Measure recall and false alarms of one row at each of `RATES`.

    Args:
        scores: Of test images, by path; the first folder is the label.
        calibration: Scores of good images that the row was not fitted on; None where they are not known.

    Returns:
        By rate, as text: `recall` where exactly that rate of the test's good images is flagged, and of the row's own
        threshold `own_promised` (the rate, or the least that so few calibration images can promise), `own_recall` and
        `own_rate`, the share of the test's good images that it flags. None where a kind of image or calibration is
        missing.
    """
    values = np.array(list(scores.values()))
    good = np.array([is_good(path) for path in scores], dtype=bool)
    known = None if calibration is None else Calibration(model_sha256="", scores=tuple(calibration), map_quantiles={})
    found: dict[str, dict[str, Any]] = {}
    for rate in RATES:
        common = recall_at(values[good], values[~good], rate) if good.any() and not good.all() else None
        promised = None if known is None else max(rate, known.smallest_rate)
        flagged = None if known is None or promised is None else values > known.threshold(promised)
        found[f"{rate:g}"] = {
            "recall": common,
            "own_promised": promised,
            "own_recall": share_of(flagged, ~good),
            "own_rate": share_of(flagged, good),
        }
    return found
