"""Drift: does a batch of images still look like the good images that the model was calibrated on?

A threshold holds for images like those. New light, another lens or another product moves many images a little, which
no single verdict shows; a test over the whole batch does. It looks at the scores and their two parts, and at plain
facts of the images (`image_facts`), each against the calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.image_facts import FACT_NAMES, FACTS
from pipelines.base.percentages import percent

STATISTICS = ("score", "rate", "distortion", *FACT_NAMES)
FEWEST = 20  # images on either side: below, the normal approximation of the test is not good
MOST = 32_768  # images of a batch that are compared; a larger batch is sampled at random
LEVEL = 0.01  # share of unchanged batches that are reported all the same
SHOWN = 3  # changes that a sentence names
MATERIAL = 0.05  # an effect this far from 0.5 changes no verdict worth naming, however many images show it
USUAL = 0.9  # quantile of the calibration scores: images that score higher may be defects, so that they are left out
FEWEST_USUAL = 0.05  # share of a batch that scores below it; with fewer, nearly all have moved
UNCHANGED = "unchanged_"  # before a statistic of calibration images: of the same ones without normal changes
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles that a comparison keeps


@dataclass(frozen=True, slots=True)
class Moved:
    """One statistic of a batch, beside that of the calibration images."""

    name: str
    effect: float  # probability that an image of the batch lies above a calibration image in it: 0.5 is no change
    p_value: float  # of its being alike, corrected for the number of statistics
    calibration: tuple[float, ...]  # the quantiles `SHARES`
    batch: tuple[float, ...]

    @property
    def drifted(self) -> bool:
        """Return whether the change is more than chance and small changes explain."""
        return self.p_value <= LEVEL

    def __str__(self) -> str:
        """The change in words."""
        share = max(self.effect, 1 - self.effect)
        who = "" if self.name in FACT_NAMES else f"{self.name} "
        return f"{who}{name_change(self.name, self.effect)} in {100 * share:.0f} % of comparisons"


def name_change(name: str, effect: float) -> str:
    """Return the word for a statistic that has moved, such as of images that are darker.

    >>> name_change("sharpness", 0.1), name_change("score", 0.9)
    ('less sharp', 'higher')
    """
    fact = next((fact for fact in FACTS if fact.name == name), None)
    lower, higher = ("lower", "higher") if fact is None else (fact.lower, fact.higher)
    return higher if effect > 0.5 else lower


@dataclass(frozen=True, slots=True)
class Drift:
    """The test's verdict on a batch."""

    p_value: float  # of the whole test, over all statistics
    drifted: bool
    moved: str  # the statistic that moved most
    effect: float  # probability that an image of the batch lies above a calibration image in it: 0.5 is no change
    images: int
    statistics: tuple[Moved, ...] = ()  # each of them, the one that moved most first
    flagged_good: float | None = None  # share of good images above the threshold, where far more than asked are

    @property
    def moves_verdicts(self) -> bool:
        """Return whether good images score otherwise, so that a threshold of calibration is another rate's."""
        moved = any(each.drifted and each.name not in FACT_NAMES for each in self.statistics)
        return self.drifted and (moved or self.flagged_good is not None)

    @property
    def changed(self) -> tuple[Moved, ...]:
        """The plain facts of the images that have changed, the most changed first."""
        return tuple(each for each in self.statistics if each.drifted and each.name in FACT_NAMES)

    @property
    def advice(self) -> str:
        """What to look at."""
        if not self.changed:
            alike = [fact.title.lower() for fact in FACTS if any(each.name == fact.name for each in self.statistics)]
            if not alike:
                return "Look at light, camera and the product itself"
            return (
                f"These are as they were: {', '.join(alike)}. Look at the product itself: many images may be defective"
            )
        looked_at = dict.fromkeys(fact.advice for each in self.changed for fact in FACTS if fact.name == each.name)
        return f"Look at {'; '.join(looked_at)}"

    def __str__(self) -> str:
        """What was found, for people."""
        if not self.drifted:
            return f"No drift: the {self.images} images look like the calibration images (p = {self.p_value:.2g})"
        shown = [each for each in self.changed[:SHOWN] or self.statistics[:1] if each.drifted]
        found = f" (p = {self.p_value:.1g}): {', '.join(map(str, shown))}" if shown else ""
        return (
            f"The {self.images} images are not like the calibration images{found}. {self.consequence}. {self.advice}. "
            "If good images look like this from now on, train on newer ones"
        )

    @property
    def consequence(self) -> str:
        """What the change means for verdicts by calibration."""
        if self.flagged_good is not None:
            return f"The threshold of calibration flags about {percent(self.flagged_good)} of the good ones"
        if self.moves_verdicts:
            return "Fewer or more of the good ones are flagged than asked"
        return "Apart from the highest scores, which may be of defects, they score as ever"


class Sample:
    """Statistics of a batch's images: of all of them, or of `MOST` drawn at random where there are more.

    Each image has a random key, and those with the smallest keys are kept: a simple random sample, so that the test
    keeps its rate. The keys follow the order in which images are added, and nothing else: the same rows in the same
    order give the same sample.

    Attributes:
        images: How many were added.
    """

    def __init__(self, names: Sequence[str] = STATISTICS) -> None:
        """Begin with none.

        Args:
            names: Of the statistics that are kept.
        """
        self.images = 0
        self._names = tuple(names)
        self._random = np.random.default_rng(0)
        self._limit = np.inf  # larger keys are not among the smallest
        self._kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # keys (n,), values (n, statistics)
        self._held = 0

    def add(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Look at more images.

        Args:
            values: By name, one for each statistic that is kept.
        """
        columns = np.stack([np.asarray(values[name], np.float64) for name in self._names], axis=1)
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
        return {name: self._kept[0][1][:, at] for at, name in enumerate(self._names)}

    def _drop(self) -> None:
        """Keep the smallest keys alone."""
        keys = np.concatenate([np.empty(0), *(keys for keys, _ in self._kept)])
        values = np.concatenate([np.empty((0, len(self._names))), *(values for _, values in self._kept)])
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

    Source: Mann and Whitney 1947, for each statistic; a handful of defects among many images moves ranks little. A
    change is tested against small ones rather than none: of enough images every trifle is significant.
    """
    sides = {
        name: (_known(batch[name]), _known(calibration[name]))
        for name in STATISTICS
        if name in calibration and name in batch
    }
    compared = {name: both for name, both in sides.items() if min(map(len, both)) >= FEWEST}
    if not compared:
        return None
    found = []
    for name, (here, usual) in compared.items():
        moved = _compare(name, here, usual, count=len(compared))
        unchanged = _known(calibration.get(f"{UNCHANGED}{name}", ()))
        if len(unchanged) >= FEWEST:
            moved = _between(moved, _compare(name, here, unchanged, count=len(compared)))
        found.append(moved)
    found.sort(key=lambda each: (each.p_value, -abs(each.effect - 0.5)))
    first = found[0]
    count = max(len(both[0]) for both in compared.values()) if images is None else images
    return Drift(first.p_value, first.p_value <= level, first.name, first.effect, count, tuple(found))


def _known(values: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Those that are numbers: an older version's rows lack newer facts."""
    every = np.asarray(values, np.float64)
    return every[np.isfinite(every)]


def without_high(
    batch: NDArray[np.float64], calibration: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores that are usual for good images: defects, however many, are no drift. All, where hardly any is usual."""
    limit = np.quantile(calibration, USUAL)
    usual, known = batch[batch <= limit], calibration[calibration <= limit]
    enough = len(usual) >= max(FEWEST, FEWEST_USUAL * len(batch)) and len(known) >= FEWEST
    return (usual, known) if enough else (batch, calibration)


def _between(changed: Moved, unchanged: Moved) -> Moved:
    """Of two comparisons, with good images that show normal changes and without, the one that has moved less.

    What lies between the two is usual.
    """
    if (changed.effect - 0.5) * (unchanged.effect - 0.5) <= 0:
        return replace(changed, effect=0.5, p_value=1.0)
    return max(changed, unchanged, key=lambda each: each.p_value)


def _compare(name: str, batch: NDArray[np.float64], calibration: NDArray[np.float64], *, count: int) -> Moved:
    if name == "score":
        batch, calibration = without_high(batch, calibration)
    effect, p_value = mann_whitney(batch, calibration, MATERIAL)
    quantiles = (tuple(np.quantile(each, SHARES).tolist()) for each in (calibration, batch))
    return Moved(name, effect, min(1.0, p_value * count), *quantiles)


def mann_whitney(x: NDArray[Any], y: NDArray[Any], tolerance: float = 0.0) -> tuple[float, float]:
    """P(X > Y) + P(X = Y)/2, and the p-value of its being within `tolerance` of one half; ties are corrected.

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
    z = max(0.0, abs(u - n * m / 2) - tolerance * n * m - 0.5) / math.sqrt(variance)
    return u / (n * m), math.erfc(z / math.sqrt(2))
