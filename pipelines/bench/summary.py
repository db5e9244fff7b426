"""From cells to rows: means over seeds with their spread, recall at false-alarm rates, ratios against a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.bench.cells import Result
from pipelines.bench.false_alarm_rates import measure_rates
from pipelines.bench.methods import BASELINES, Method, Published

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "aupro")
COSTS = ("train_seconds", "images_per_second", "peak_mib")


def spread(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Mean and spread of a figure over seeds.

    Args:
        values: One for each seed; None where it is undefined there.

    Returns:
        mean, min, max, sd (None for one value; n - 1 in the denominator) and values; None where nothing is defined.

    >>> spread([1.0, None, 3.0])["mean"]
    2.0
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "min": min(known),
        "max": max(known),
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "values": known,
    }


def summarise(method: Method, results: Sequence[Result]) -> dict[str, Any]:
    """One row of the table, from the cells of one method."""
    done = [result for result in results if result["status"] == "ok"]
    row: dict[str, Any] = {
        "title": method.title,
        "seeds": [result["seed"] for result in done],
        "random": method.random,
        "failed": {str(result["seed"]): result["reason"] for result in results if result["status"] != "ok"},
    }
    if not done:
        return row
    defects = sorted({name for result in done for name in result["figures"]["defects"]})
    return row | {
        **{name: spread(result["figures"][name] for result in done) for name in FIGURES},
        **{name: spread(result[name] for result in done) for name in COSTS},
        "defects": {
            defect: {
                name: spread(result["figures"]["defects"][defect][name] for result in done)
                for name in ("image_auroc", "aupro")
            }
            for defect in defects
        },
        "rates": _summarise_rates(done),
        "n_calibrate": None if done[0]["calibration"] is None else len(done[0]["calibration"]),
        **{name: done[0][name] for name in ("size", "n_train", "device", "note")},
    }


def _summarise_rates(done: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """By rate, the spread over seeds of each figure of `measure_rates`."""
    of_seeds = [measure_rates(result["scores"], result["calibration"]) for result in done]
    return {
        rate: {name: spread(each[rate][name] for each in of_seeds) for name in of_seeds[0][rate]}
        for rate in of_seeds[0]
    }


def means_of(row: dict[str, Any]) -> dict[str, Any]:
    """The means over seeds of a row that has figures, without their spread; under `rates` those of each rate."""

    def mean(figure: dict[str, Any] | None) -> float | None:
        return None if figure is None else float(figure["mean"])

    rates = {rate: {name: mean(each) for name, each in figures.items()} for rate, figures in row["rates"].items()}
    return {**{name: mean(row[name]) for name in (*FIGURES, *COSTS)}, "rates": rates}


def choose_baseline(rows: dict[str, dict[str, Any]]) -> str | None:
    """The row that the others are compared with."""
    have = [name for name, row in rows.items() if row["seeds"]]
    preferred = [name for name in BASELINES if name in have] + [name for name in have if name != "ours"]
    return preferred[0] if preferred else None


def compute_ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Each row against the baseline: 1 - image AUROC, speed and memory as ratios, below 1 for fewer or less."""
    against = choose_baseline(rows)
    if against is None:
        return {}
    base = rows[against]

    def ratio(row: dict[str, Any], name: str) -> float | None:
        if row[name] is None or not base[name] or not base[name]["mean"]:
            return None
        return float(row[name]["mean"] / base[name]["mean"])

    def missed(row: dict[str, Any]) -> float | None:
        ours, theirs = row["image_auroc"], base["image_auroc"]
        return None if not ours or not theirs or theirs["mean"] == 1 else (1 - ours["mean"]) / (1 - theirs["mean"])

    return {
        name: {"missed": missed(row), **{cost: ratio(row, cost) for cost in COSTS}}
        for name, row in rows.items()
        if row["seeds"]
    }


def as_published(published: Sequence[Published]) -> list[dict[str, Any]]:
    """For the document."""
    return [{"title": item.title, "image_auroc": item.image_auroc} for item in published]
