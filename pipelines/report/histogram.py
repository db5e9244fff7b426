"""The distribution of scores, binned over every row, with the calibration scores in the same bins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_FEWEST, _MOST = 30, 90
_REACH = 2.0  # how many spans of the middle 98 % the axis reaches beyond it; farther scores are counted at its ends


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of images in equal bins of score.

    Attributes:
        edges: bin limits, rising, one more than bins.
        images: images in each bin; the end bins also hold what lies beyond the axis.
        calibration: calibration scores in each bin; empty without calibration.
        below: images lower than the axis.
        beyond: images higher than the axis.
    """

    edges: tuple[float, ...]
    images: tuple[int, ...]
    calibration: tuple[int, ...]
    below: int
    beyond: int


def bin_scores(scores: NDArray[np.float64], calibration: NDArray[np.float64], threshold: float | None) -> Histogram:
    """Bin scores on an axis that a few extreme ones cannot stretch.

    Args:
        scores: finite scores of all images; at least one.
        calibration: finite calibration scores; may be empty.
        threshold: a score that the axis must hold.
    """
    low, high = _axis(np.concatenate([scores, calibration]), threshold)
    edges = np.linspace(low, high, _bins(calibration if len(calibration) else scores, high - low) + 1)
    return Histogram(
        edges=tuple(edges.tolist()),
        images=_counts(scores, edges),
        calibration=_counts(calibration, edges) if len(calibration) else (),
        below=int(np.count_nonzero(scores < low)),
        beyond=int(np.count_nonzero(scores > high)),
    )


def _axis(values: NDArray[np.float64], threshold: float | None) -> tuple[float, float]:
    least, lower, upper, most = (float(x) for x in np.quantile(values, [0.0, 0.01, 0.99, 1.0]))
    reach = _REACH * (upper - lower)
    low, high = max(least, lower - reach), min(most, upper + reach)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only: a bin's width around it
        margin = 0.5 * abs(low) or 0.5
        return low - margin, high + margin
    margin = 0.02 * (high - low)
    return low - margin, high + margin


def _bins(normal: NDArray[np.float64], length: float) -> int:
    """Bins that resolve the normal images, which are the narrow part (the rule of Freedman and Diaconis)."""
    lower, upper = (float(x) for x in np.quantile(normal, [0.25, 0.75]))
    width = 2 * (upper - lower) / float(np.cbrt(len(normal)))
    return int(np.clip(length / width, _FEWEST, _MOST)) if width > 0 else _FEWEST


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[int, ...]:
    inside = np.clip(values, edges[0], edges[-1])
    counts: list[int] = np.histogram(inside, edges)[0].tolist()
    return tuple(counts)


def thin(points: tuple[tuple[float, float], ...], most: int = 400) -> tuple[tuple[float, float], ...]:
    """A curve of at most `most` points: corners only, then evenly spaced ones of those.

    >>> thin(((0, 0), (0, 0.5), (0, 1), (1, 1)))
    ((0, 0), (0, 1), (1, 1))
    """
    corners = list(points[:1])
    for here, after in pairwise(points[1:]):
        before = corners[-1]
        turn = (here[0] - before[0]) * (after[1] - here[1]) - (here[1] - before[1]) * (after[0] - here[0])
        if abs(turn) > 1e-12:
            corners.append(here)
    corners += points[1:][-1:]
    if len(corners) <= most:
        return tuple(corners)
    return tuple(corners[round(i)] for i in np.linspace(0, len(corners) - 1, most))
