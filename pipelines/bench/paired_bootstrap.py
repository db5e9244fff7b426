"""Differences between two rows on the same images, with bootstrap intervals: on one data set, and over several.

Good and defective images are drawn apart, with replacement, and each draw is the same for all rows. With several seeds
a row's figure in a draw is the mean over its seeds: the differences are then those of the table. A mean of scores would
be another model, an ensemble of the seeds, and would favour methods that are random.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.bench.false_alarm_rates import is_good, recalls_at

DRAWS = 2000
SEED = 0
LEVEL = 0.95
RATE = 0.05  # the common false-alarm rate of `recall`

Floats = NDArray[np.float64]
Scores = Mapping[str, float]  # of one row with one seed, by path
Samples = dict[str, Floats]  # figure -> (1 + DRAWS,): on the images themselves, then on each draw


def sample_figures(dataset: str, rows: Mapping[str, Sequence[Scores]]) -> dict[str, Samples]:
    """Measure rows on the images that all of them have scored, and on each draw of these.

    Args:
        dataset: Its name, which the draws depend on: those of two data sets are independent.
        rows: Of each, the scores of each seed.

    Returns:
        Of each row, `image_auroc` and `recall`; empty where good or defective images are missing.
    """
    seeds = [scores for each in rows.values() for scores in each]
    paths = sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []
    good, bad = ([path for path in paths if is_good(path) is wanted] for wanted in (True, False))
    if not good or not bad:
        return {}
    generator = np.random.default_rng([SEED, *dataset.encode()])
    good_counts, bad_counts = _draw(generator, len(good)), _draw(generator, len(bad))
    found = {}
    for name, row in rows.items():
        of_seeds = [
            _measure(np.array([each[path] for path in good]), np.array([each[path] for path in bad]),
                     good_counts, bad_counts)
            for each in row
        ]  # fmt: skip
        if of_seeds:
            found[name] = {figure: np.mean([each[figure] for each in of_seeds], axis=0) for figure in of_seeds[0]}
    return found


def _draw(generator: np.random.Generator, images: int) -> Floats:
    """How often each image is drawn, (1 + DRAWS, images); first each of them once."""
    counts = generator.multinomial(images, np.full(images, 1 / images), size=DRAWS)
    return np.vstack([np.ones(images), counts])


def _measure(good: Floats, bad: Floats, good_counts: Floats, bad_counts: Floats) -> Samples:
    """Measure one row with one seed, from its scores and from how often each image is in each draw."""
    by_good, by_bad = np.argsort(good), np.argsort(bad)
    good, good_counts = good[by_good], good_counts[:, by_good]
    bad, bad_counts = bad[by_bad], bad_counts[:, by_bad]
    below = np.pad(good_counts.cumsum(axis=1), ((0, 0), (1, 0)))  # good images below each score, ties counting half
    lower = (below[:, np.searchsorted(good, bad, "left")] + below[:, np.searchsorted(good, bad, "right")]) / 2
    return {
        "image_auroc": (bad_counts * lower).sum(axis=1) / (good.size * bad.size),
        "recall": recalls_at(good, bad, good_counts, bad_counts, RATE),
    }


def choose_subject(names: Sequence[str]) -> str | None:
    """The row that the others are subtracted from: `ours`, or the first where that is missing."""
    return "ours" if "ours" in names else next(iter(names), None)


def compare(sets: Mapping[str, Mapping[str, Samples]]) -> dict[str, Any] | None:
    """Subtract every other row from the subject, on each data set and in the mean over those that both rows have.

    Args:
        sets: From `sample_figures`, by data set.

    Returns:
        `subject`, `draws`, `level`, `rate`, and `rows`: of each other row, by data set under `sets` and under `mean`,
        `image_auroc` and `recall` with `difference`, `low` and `high`; None where there are no two rows.
    """
    names = list(dict.fromkeys(name for rows in sets.values() for name in rows))
    subject = choose_subject(names)
    found = {}
    for name in names:
        both = {dataset: rows for dataset, rows in sets.items() if name in rows and subject in rows}
        if name == subject or subject is None or not both:
            continue
        figures = list(next(iter(both.values()))[name])
        apart = {
            dataset: {figure: rows[subject][figure] - rows[name][figure] for figure in figures}
            for dataset, rows in both.items()
        }
        found[name] = {
            "sets": {dataset: {figure: _describe(apart[dataset][figure]) for figure in figures} for dataset in apart},
            "mean": {figure: _describe(np.mean([each[figure] for each in apart.values()], 0)) for figure in figures},
        }
    return {"subject": subject, "draws": DRAWS, "level": LEVEL, "rate": RATE, "rows": found} if found else None


def _describe(sample: Floats) -> dict[str, float]:
    """The difference on the images themselves, and the quantiles of the draws."""
    low, high = np.quantile(sample[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"difference": float(sample[0]), "low": float(low), "high": float(high)}
