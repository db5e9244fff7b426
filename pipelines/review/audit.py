"""An audit: what answers about a random sample tell about all images of a run, of which nobody looked at most.

An image that was flagged is looked at anyway; a defect that was missed is not, so that recall is known only from images
that chance has chosen. They are drawn in strata by score, before anybody looks, and are answered in a random order:
whoever stops early has a smaller sample, and no biased one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of intervals
DRAWS = 4_000
SEEDING = 64  # images of an audit's order that seed the chance of a sample of it
# Of images that were not flagged, from the highest scores down: share of these images, and of the audit's answers.
BELOW = ((0.1, 0.35), (0.3, 0.2), (0.6, 0.2))
OF_FLAGGED = 0.25  # share of the audit's answers


@dataclass(frozen=True, slots=True)
class Stratum:
    """Images of similar scores, and what is known of them.

    Attributes:
        flagged: Whether they were flagged: all of a stratum were, or none.
        images: How many there are.
        answered: How many of them the audit has answers for, in the order in which they were drawn.
        defects: How many of these are defective.
    """

    flagged: bool
    images: int
    answered: int = 0
    defects: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of images, in [0, 1]: the likeliest value, None where nothing was found, and an interval."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Audit:
    """Which images are asked about, in which order.

    Attributes:
        order: (n,) index of an image for each question; every image is in it once.
        stratum: (n,) of each image, by its index.
        strata: Flagged ones first, then from the highest scores down.
        chances: Of each stratum, the chance that the first question is about one particular image of it.
    """

    order: NDArray[np.int64]
    stratum: NDArray[np.int64]
    strata: tuple[Stratum, ...]
    chances: tuple[float, ...]


def draw_audit(scores: NDArray[np.float64], flagged: NDArray[np.bool_], seed: int) -> Audit:
    """Draw the order of an audit.

    Each question goes to a stratum by the shares `OF_FLAGGED` and `BELOW`, and to a random image of it that was not yet
    asked about. Once a stratum is used up, the others share its questions.

    Args:
        scores: (n,), higher is more abnormal.
        flagged: (n,).
        seed: Of chance; equal seeds give equal audits.
    """
    random = np.random.default_rng(seed)
    below = np.flatnonzero(~flagged)
    below = below[np.argsort(-scores[below], kind="stable")]
    ends = np.rint(np.cumsum([0.0, *(share for share, _ in BELOW)]) * len(below)).astype(int)
    parts = [np.flatnonzero(flagged), *(below[start:stop] for start, stop in pairwise(ends))]
    weights = [OF_FLAGGED, *(share for _, share in BELOW)]
    kept = [(part, weight, number == 0) for number, (part, weight) in enumerate(zip(parts, weights, strict=True))]
    kept = [each for each in kept if len(each[0])]
    stratum, turn = np.empty(len(scores), np.int64), np.empty(len(scores))
    for number, (part, weight, _) in enumerate(kept):
        stratum[part] = number
        # The k-th image of a stratum has its turn about when its share of the questions has come to k.
        places = (np.arange(len(part)) + random.random(len(part))) / weight
        turn[random.permutation(part)] = places
    strata = tuple(Stratum(is_flagged, len(part)) for part, _, is_flagged in kept)
    total = sum(weight for _, weight, _ in kept)
    chances = tuple(weight / total / len(part) for part, weight, _ in kept)
    return Audit(np.argsort(turn, kind="stable"), stratum, strata, chances)


def thin_audit(audit: Audit, answered: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Make a plain random sample of all images from those that an audit has answers for.

    An audit asks more about high scores. The sample has the same share of every stratum, rounded up or down by chance,
    so that each image of the run is in it with the same chance; within a stratum the answered images are random
    already. Rounded up, the few flagged images would be too many of a small sample, and thresholds too high.

    Args:
        audit: With the strata.
        answered: (n,) whether there is an answer about an image.

    Returns:
        Indices of the images, in the order of the audit; none while a stratum has no answer.
    """
    kept = audit.order[answered[audit.order]]
    strata = audit.stratum[kept]
    sizes = np.array([each.images for each in audit.strata])
    counts = np.bincount(strata, minlength=len(sizes))
    chance = np.random.default_rng(audit.order[:SEEDING]).random(len(sizes))  # with more answers, the same
    most = np.floor(sizes * (counts / sizes).min() + 1e-9 + chance)
    turn = np.empty(len(kept), np.int64)
    for number in range(len(sizes)):
        own = strata == number
        turn[own] = np.arange(own.sum())
    sample: NDArray[np.int64] = kept[turn < most[strata]]
    return sample


def count_answers_for(audit: Audit, images: int) -> int:
    """Return how many answers an audit takes until `thin_audit` makes a sample of so many images of them."""
    few, enough = 0, len(audit.order)
    while few < enough:
        answers = (few + enough) // 2
        answered = np.zeros(len(audit.order), bool)
        answered[audit.order[:answers]] = True
        if len(thin_audit(audit, answered)) < images:
            few = answers + 1
        else:
            enough = answers
    return enough


def estimate_recall(strata: Sequence[Stratum], level: float = LEVEL) -> Estimate:
    """Estimate the share of all defects that were flagged.

    Args:
        strata: With what the audit has found.
        level: Probability that the interval holds the true share, at least.

    Returns:
        The ratio estimator, and an interval that is honest where the audit has found no miss: it then says how many
        there may be. It is wide, rather than too narrow: each end takes the end of Clopper and Pearson's interval that
        is worse for it, as a distribution, and adds what chance may do to the images that nobody asked about.

    Source: Cochran 1977, "Sampling techniques", section 6.11, for the estimator; Clopper and Pearson 1934, and Dempster
    1966 for both ends as distributions.
    """
    flagged, missed = ([each for each in strata if each.flagged is which] for which in (True, False))
    (least_found, most_found), (least_missed, most_missed) = (_draw_defects(each) for each in (flagged, missed))
    found, total = _expand(flagged), _expand(strata)
    low = _share(least_found, most_missed, empty=0.0)
    high = _share(most_found, least_missed, empty=1.0)
    ends = float(np.quantile(low, (1 - level) / 2)), float(np.quantile(high, (1 + level) / 2))
    return Estimate(found / total if total else None, *ends)


def estimate_precision(strata: Sequence[Stratum], level: float = LEVEL) -> Estimate:
    """Estimate the share of flagged images that are defective; see `estimate_recall`."""
    flagged = [each for each in strata if each.flagged]
    images = sum(each.images for each in flagged)
    if not images:
        return Estimate(None, 0.0, 1.0)
    least, most = _draw_defects(flagged)
    value = _expand(flagged) / images if any(each.answered for each in flagged) else None
    low, high = float(np.quantile(least, (1 - level) / 2)), float(np.quantile(most, (1 + level) / 2))
    return Estimate(value, low / images, high / images)


def count_answers_needed(strata: Sequence[Stratum], width: float, level: float = LEVEL) -> int | None:
    """Estimate how many more answers it takes until the interval of recall is no wider than that.

    The rest of the sample is taken to be like the part that is known.

    Args:
        strata: With what the audit has found so far.
        width: Of the interval, in (0, 1).
        level: Of the interval.

    Returns:
        The answers beyond those there are; None where not even an answer about every image would do.
    """
    known, images = sum(each.answered for each in strata), sum(each.images for each in strata)
    asked = known
    while asked < images:
        more = [_imagine(each, asked / max(known, 1)) for each in strata]
        found = estimate_recall(more, level)
        if found.high - found.low <= width:
            return sum(each.answered for each in more) - known
        asked = max(asked + 1, round(1.25 * asked))
    every = estimate_recall([_imagine(each, np.inf) for each in strata], level)
    return images - known if every.high - every.low <= width else None


def _imagine(stratum: Stratum, factor: float) -> Stratum:
    answered = int(min(stratum.images, max(stratum.answered, 1) * factor))
    share = stratum.defects / stratum.answered if stratum.answered else 0.0
    return Stratum(stratum.flagged, stratum.images, answered, min(answered, round(share * answered)))


def _draw_defects(strata: Sequence[Stratum]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw how many defects some strata may hold, (`DRAWS`,): from the low ends, and from the high ends."""
    random, sums = np.random.default_rng(0), [np.zeros(DRAWS), np.zeros(DRAWS)]
    for each in strata:
        good = each.answered - each.defects
        ends = (
            random.beta(each.defects, good + 1, DRAWS) if each.defects else np.zeros(DRAWS),
            random.beta(each.defects + 1, good, DRAWS) if good else np.ones(DRAWS),
        )
        for total, rate in zip(sums, ends, strict=True):
            total += each.defects + random.binomial(each.images - each.answered, rate)
    return sums[0], sums[1]


def _expand(strata: Sequence[Stratum]) -> float:
    """Estimate the number of defects: each one that was found stands for as many as its stratum has for each answer."""
    return sum(each.images * each.defects / each.answered for each in strata if each.answered)


def _share(found: NDArray[np.float64], missed: NDArray[np.float64], *, empty: float) -> NDArray[np.float64]:
    total = found + missed
    return np.where(total > 0, found / np.maximum(total, 1), empty)
