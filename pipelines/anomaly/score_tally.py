"""What a rule for the threshold has to know of all scores, in memory that does not grow with their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.calibration import Calibration

Floats = NDArray[np.float64]


class Tally:
    """Scores of images, counted.

    A conformal p-value has n + 1 values for n calibration scores, so scores are counted by their p-value. The largest
    scores are kept as they are.
    """

    def __init__(self, calibration: Calibration, keep: int = 0) -> None:
        """Begin with no scores.

        Args:
            calibration: What p-values are made of.
            keep: Number of the largest scores that `largest` is asked for.
        """
        self._calibration, self._keep = calibration, keep
        self._p_values = np.arange(1, calibration.n + 2) / (calibration.n + 1)
        self._counts = np.zeros(calibration.n + 1, np.int64)  # by p-value, ascending
        self._highest = np.full(calibration.n + 1, -np.inf)  # score of each p-value
        self._lowest = np.inf
        self._largest = np.empty(0)  # ascending

    @property
    def total(self) -> int:
        """Number of the scores."""
        return int(self._counts.sum())

    def add(self, scores: Floats) -> None:
        """Count more scores: the order does not matter."""
        if not len(scores):
            return
        slots = np.rint(self._calibration.p_values(scores) * len(self._counts)).astype(np.int64) - 1
        np.add.at(self._counts, slots, 1)
        np.maximum.at(self._highest, slots, scores)
        self._lowest = min(self._lowest, float(scores.min()))
        if self._keep:
            self._largest = np.sort(np.concatenate([self._largest, scores]))[-self._keep :]

    def largest(self, rank: int) -> float | None:
        """Return the score of that rank, 0 being the largest; None where there are fewer scores."""
        return float(self._largest[-1 - rank]) if rank < len(self._largest) else None

    def step_up(self, share: float) -> float:
        """Return the highest score that Benjamini and Hochberg's procedure does not reject: those above it are.

        Args:
            share: Of false discoveries.
        """
        rejected = np.cumsum(self._counts)
        passes = np.flatnonzero((self._counts > 0) & (self._p_values <= share * rejected / self.total))
        kept = self._highest[passes[-1] + 1 :] if len(passes) else self._highest
        best = float(kept.max(initial=-np.inf))
        return best if np.isfinite(best) else float(np.nextafter(self._lowest, -np.inf))
