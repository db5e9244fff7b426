"""Drift: does a batch of images still look like the good images that the model was calibrated on?

A threshold holds for images like those. New light, another lens or another product moves many images a little, which
no single verdict shows; a test over the whole batch does. It looks at the scores and their two parts, and at plain
facts of the images (brightness, contrast, detail), each against the calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTS = ("brightness", "contrast", "detail")
STATISTICS = ("score", "rate", "distortion", *FACTS)
FEWEST = 20  # images on either side: below, the normal approximation of the test is not good
MOST = 65_536  # images of a batch that are compared; a larger batch is sampled at random
LEVEL = 0.01  # share of unchanged batches that are reported all the same
_LONGEST = 256  # pixels looked at along each side


@dataclass(frozen=True, slots=True)
class Drift:
    """The test's verdict on a batch."""

    p_value: float  # of the whole test, over all statistics
    drifted: bool
    moved: str  # the statistic that moved most
    effect: float  # probability that an image of the batch lies above a calibration image in it: 0.5 is no change
    images: int

    def __str__(self) -> str:
        """One sentence for people."""
        if not self.drifted:
            return f"no drift: the {self.images} images look like the calibration images (p = {self.p_value:.2g})"
        way = "higher" if self.effect > 0.5 else "lower"
        share = max(self.effect, 1 - self.effect)
        return (
            f"the {self.images} images are not like the calibration images (p = {self.p_value:.1g}): {self.moved} is "
            f"{way} in {share:.0%} of comparisons; their false-alarm rate may be another. Check light and camera, or "
            "train on newer good images"
        )


def image_facts(pixels: NDArray[Any]) -> dict[str, float]:
    """Brightness, contrast and detail of an image, as shares of the largest value.

    Args:
        pixels: (H, W, C), uint8 or uint16.

    Returns:
        Mean, standard deviation, and mean absolute difference of neighbours.
    """
    step = max(1, min(pixels.shape[:2]) // _LONGEST)
    some, largest = pixels[::step, ::step], float(np.iinfo(pixels.dtype).max)
    # In whole numbers: several times faster than in floating point, and every image passes here.
    mean = int(some.sum(dtype=np.uint64)) / some.size
    squares = np.square(some, dtype=np.uint16 if pixels.dtype == np.uint8 else np.uint32)
    variance = int(squares.sum(dtype=np.uint64)) / some.size - mean**2
    neighbours = [(some[1:], some[:-1]), (some[:, 1:], some[:, :-1])]
    detail = sum(float((np.maximum(a, b) - np.minimum(a, b)).mean()) for a, b in neighbours if a.size)
    return {
        "brightness": mean / largest,
        "contrast": math.sqrt(max(0.0, variance)) / largest,
        "detail": detail / largest,
    }


class Sample:
    """Statistics of a batch's images: of all of them, or of `MOST` drawn at random where there are more.

    Each image has a random key, and those with the smallest keys are kept: a simple random sample, so that the test
    keeps its rate. The keys follow the order in which images are added, and nothing else: the same rows in the same
    order give the same sample.

    Attributes:
        images: How many were added.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.images = 0
        self._random = np.random.default_rng(0)
        self._limit = np.inf  # larger keys are not among the smallest
        self._kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # keys (n,), values (n, statistics)
        self._held = 0

    def add(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Look at more images.

        Args:
            values: By name, one for each of `STATISTICS`.
        """
        columns = np.stack([np.asarray(values[name], np.float64) for name in STATISTICS], axis=1)
        self.images += len(columns)
        keys = self._random.random(len(columns))
        few = keys < self._limit
        self._kept.append((keys[few], columns[few]))
        self._held += int(few.sum())
        if self._held >= 2 * MOST:
            self._drop()

    @property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """The statistics of the sample, by name."""
        self._drop()
        return {name: self._kept[0][1][:, at] for at, name in enumerate(STATISTICS)}

    def _drop(self) -> None:
        """Keep the smallest keys alone."""
        keys = np.concatenate([np.empty(0), *(keys for keys, _ in self._kept)])
        values = np.concatenate([np.empty((0, len(STATISTICS))), *(values for _, values in self._kept)])
        if len(keys) > MOST:
            chosen = np.argpartition(keys, MOST - 1)[:MOST]
            keys, values = keys[chosen], values[chosen]
            self._limit = float(keys.max())
        self._kept, self._held = [(keys, values)], len(keys)


def check_drift(
    calibration: Mapping[str, Sequence[float]],
    batch: Mapping[str, Sequence[float] | NDArray[Any]],
    level: float = LEVEL,
    images: int | None = None,
) -> Drift | None:
    """Compare a batch with the calibration images in every statistic that both have.

    Args:
        calibration: Values of the calibration images by name.
        batch: Values of the batch by name.
        level: Share of unchanged batches that may be reported.
        images: How many the batch has, where `batch` is a sample of them.

    Returns:
        The verdict, its p-value corrected for looking at several statistics (Bonferroni); None where one side has
        too few images to tell.

    Source: Mann and Whitney 1947, for each statistic; a handful of defects among many images moves ranks little.
    """
    names = [name for name in STATISTICS if name in calibration and name in batch]
    if not names or min(len(calibration[names[0]]), len(batch[names[0]])) < FEWEST:
        return None
    results = {name: mann_whitney(np.asarray(batch[name]), np.asarray(calibration[name])) for name in names}
    moved = min(results, key=lambda name: results[name][1])
    effect, p_value = results[moved]
    p_value = min(1.0, p_value * len(names))
    return Drift(p_value, p_value <= level, moved, effect, len(batch[names[0]]) if images is None else images)


def mann_whitney(x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
    """P(X > Y) + P(X = Y)/2 and the two-sided p-value of its being one half, with ties and continuity corrected.

    Not scipy.stats.mannwhitneyu: to import scipy.stats takes about 3 s, and every scoring run would wait for it.

    >>> effect, p_value = mann_whitney(np.arange(50.0), np.arange(50.0) + 100)
    >>> effect, p_value < 1e-9
    (0.0, True)
    """
    values, inverse, counts = np.unique(np.concatenate([x, y]), return_inverse=True, return_counts=True)
    del values
    mid_rank = np.cumsum(counts) - (counts - 1) / 2
    n, m = len(x), len(y)
    total = n + m
    u = float(mid_rank[inverse[:n]].sum()) - n * (n + 1) / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    if variance <= 0:
        return 0.5, 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return u / (n * m), math.erfc(z / math.sqrt(2))
