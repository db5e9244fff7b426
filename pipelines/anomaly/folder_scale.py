"""How the good images of a folder score beside those of calibration: what verdicts against the folder are made of.

Where light or camera have changed, good images score otherwise than those of calibration, and a threshold of
calibration flags many of them, or none of the defects. Most images of a delivery are good, though, so that its own
scores show where good ones lie now: calibration scores are put there, by moving and stretching them, and the threshold
goes with them. This rests on an assumption that no figure can check: most images are good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.calibration import Calibration
from pipelines.base.percentages import percent

FEWEST_IMAGES = 50  # fewer do not show where good images lie
LEAST_GOOD = 0.7  # share of good images below which the rest might be the good ones
LEAST_SHARE = 0.3  # that is looked for
MUCH_WIDER = 2.0  # times the line that takes some images for defects: the other one runs over two kinds of images
LEAST_FIT = 0.9  # share of the variance of quantiles that a line explains where scores are of one kind
LOW, HIGH, LEVELS = 0.3, 0.9, 25  # quantiles of good images that are compared: the tail of low scores says nothing
COUNTED_BELOW = 0.95  # quantile of good images below which images are counted, to find the share of good ones
NARROWEST, WIDEST = 0.2, 20.0  # times the spread of the calibration scores
STEPS, CLOSE = 60, 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FolderScale:
    """Where good images of a folder lie: a calibration score c becomes `move` + `stretch` * c.

    Attributes:
        move: Of a calibration score of zero, in scores.
        stretch: Spread of good images of the folder, in spreads of calibration images.
        good: Estimated share of the folder's images that are good, in (0, 1].
        images: Number of images that it rests on.
    """

    move: float
    stretch: float
    good: float
    images: int

    def from_calibration(self, scores: Floats) -> Floats:
        """Put calibration scores on the scale of the folder, (n,)."""
        return self.move + self.stretch * scores


@dataclass(frozen=True, slots=True)
class NoScale:
    """Why a folder has no scale of its own.

    Attributes:
        reason: In words, beginning in lower case.
    """

    reason: str


def estimate_scale(scores: Floats, calibration: Calibration) -> FolderScale | NoScale:
    """Find where the good images of a folder lie, given scores that are mostly those of good images.

    Quantiles of the scores are compared with those of calibration by a straight line. Defects are taken to lie at the
    upper end: with a share g of good images, the quantile p of the good ones is the quantile g * p of all. The share
    follows from how many images lie below what is a high quantile of good images, and both are found in turns, once
    from all images being good and once from few. Where the first line is much steeper, or fits badly, it runs over
    good images and defects alike, and there is no scale.

    Args:
        scores: (N,), of the folder's images.
        calibration: Scores of good images.

    Returns:
        The scale; or why there is none.

    Source: Efron 2004, "Large-scale simultaneous hypothesis testing: the choice of a null hypothesis", sections 4 and
    5, with the calibration scores in place of a normal distribution; Storey 2002, "A direct approach to false
    discovery rates", eq. 4, for the share of good images.
    """
    if len(scores) < FEWEST_IMAGES:
        return NoScale(f"it takes {FEWEST_IMAGES} images to see where good ones lie, and there are {len(scores)}")
    good = np.asarray(calibration.scores, np.float64)
    if np.quantile(good, HIGH) <= np.quantile(good, LOW):
        return NoScale("the calibration images all score the same")
    wide, narrow = find_lines(scores, good)
    if wide.good < LEAST_GOOD:
        return NoScale(
            f"more than {percent(1 - LEAST_GOOD)} of the images stand out from the rest, and then it is not known "
            "which of the two are the good ones"
        )
    if wide.stretch > MUCH_WIDER * narrow.stretch or wide.fit < LEAST_FIT or wide.stretch >= WIDEST:
        return NoScale("their scores fall into two kinds, and it is not known which of the two are the good ones")
    return FolderScale(wide.move, wide.stretch, wide.good, len(scores))


class Line(NamedTuple):
    """A straight line from quantiles of calibration scores to quantiles of scores."""

    move: float
    stretch: float
    good: float  # share of good images
    fit: float  # share of the quantiles' variance that it explains


def find_lines(scores: Floats, calibration: Floats) -> tuple[Line, Line]:
    """Find the line from all images being good, and the one from few."""
    return _find_line(scores, calibration, 1.0), _find_line(scores, calibration, LEAST_GOOD)


def _find_line(scores: Floats, calibration: Floats, share: float) -> Line:
    """Find the line and the share of good images in turns, from a share on."""
    levels = np.linspace(LOW, HIGH, LEVELS)
    usual, limit = np.quantile(calibration, levels), np.quantile(calibration, COUNTED_BELOW)
    ordered, places = np.sort(scores), np.linspace(0, 1, len(scores))  # a quantile of sorted scores costs little
    for _ in range(STEPS):
        here = np.interp(levels * share, places, ordered)
        slope = float(((usual - usual.mean()) * (here - here.mean())).mean() / usual.var())
        stretch = min(max(slope, NARROWEST), WIDEST)
        move = float(here.mean() - stretch * usual.mean())
        below = float(np.searchsorted(ordered, move + stretch * limit, side="right")) / len(scores) / COUNTED_BELOW
        change = min(1.0, below) - share
        share = max(share + change / 2, LEAST_SHARE)
        if abs(change) < CLOSE:
            break
    missed = float((here - move - stretch * usual).var())
    return Line(move, stretch, share, 1 - missed / max(float(here.var()), 1e-12))
