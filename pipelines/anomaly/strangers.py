"""Another subject: does nearly every image score above, or below, all that the model was calibrated on?

The test for drift needs twenty images on either side. A model of tiles that is run over a folder of bottles flags all
of them, however few, and a report of flagged images alone passes that off as defects. Over a folder of empty pictures
it flags none, since they are easier to explain than any tile, and the report passes them off as good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.anomaly.calibration import Calibration, beta_binomial_cdf
from pipelines.anomaly.group_thresholds import group_of

MOST = 0.9  # share of the images that score beyond all calibration images, on one side
LEVEL = 0.01  # probability that images like those of calibration do so, on that side
FAR = 3.0  # times the range of the calibration scores beyond them: far beyond
FEWEST_FAR, FEWEST_KNOWN = 2, 5  # images that have to be so, and calibration images that have a range
COUNTED = 1_000  # images that the probability is computed for, at most: it falls with their number


@dataclass(slots=True)
class Strangers:
    """How many images score above and below all calibration images, and how many far beyond.

    Attributes:
        calibration: Scores of good images.
        within: Only images of these sub-folders count, where others are known to be abnormal; empty: all.
    """

    calibration: Calibration
    within: tuple[str, ...] = ()
    images: int = 0
    above: int = 0
    far_above: int = 0
    below: int = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the rows that have a score."""
        lowest, highest = self.calibration.scores[0], self.calibration.scores[-1]
        known = self.calibration.n >= FEWEST_KNOWN and highest > lowest
        limit = highest + FAR * (highest - lowest) if known else math.inf
        for row in rows:
            if row["status"] == "ok" and (not self.within or group_of(row["path"]) in self.within):
                self.images += 1
                self.above += row["score"] > highest
                self.far_above += row["score"] > limit
                self.below += row["score"] < lowest

    def warning(self) -> str | None:
        """What to tell a person; None where enough images score like good ones."""
        if self.far_above >= FEWEST_FAR and 2 * self.far_above >= self.images:
            count, where = self.far_above, "far above"
        elif self._nearly_all(self.above):
            count, where = self.above, "above"
        elif self._nearly_all(self.below):
            count, where = self.below, "below"
        else:
            return None
        advice = "use another model, or train on good images like these"
        if where != "below":
            advice = f"If they have no defects, {advice}"
        return (
            f"{count} of {self.images} images score {where} all {self.calibration.n} calibration images: they seem to "
            f"show another subject, or were taken otherwise. {advice[0].upper()}{advice[1:]}"
        )

    def _nearly_all(self, count: int) -> bool:
        """Return whether images like those of calibration would hardly ever lie beyond them in this number.

        Of m exchangeable images, the number above the highest of n others is BetaBinomial(m, 1, n).
        """
        if not self.images or count < MOST * self.images:
            return False
        counted = min(self.images, COUNTED)
        among = count * counted // self.images
        return bool(1 - beta_binomial_cdf(counted, 1, self.calibration.n)[among - 1] <= LEVEL)
