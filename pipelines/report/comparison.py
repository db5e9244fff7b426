"""How the last run compares with those before it, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from pipelines.anomaly.drift import LEVEL
from pipelines.report import words
from pipelines.report.past_charts import describe_drift, name_unit, scale_error_bar
from pipelines.report.past_runs import PastRun

_USUAL = 0.9  # share of the earlier runs that are usual


def compare_runs(runs: Sequence[PastRun]) -> str:
    """Return one sentence on the last run: flagged images or error bars, drift, failed files.

    Args:
        runs: All runs of a model, oldest first; at least one.
    """
    last, before = runs[-1], runs[:-1]
    parts = [_compare_flagged(last, before) or _compare_error_bars(last, before)]
    if last.drift is not None and last.drift.drifted:
        parts.append(f"drift is reported: {describe_drift(last.drift)}")
    elif last.drift is not None:
        parts.append("no drift")
    if last.failed:
        usual = median(run.failed / run.files for run in before if run.files) if any(r.files for r in before) else None
        share = f"{words.format_percent(last.failed / last.files)}{_add_usual(words.format_percent(usual), usual)}"
        parts.append(f"{words.plural(last.failed, 'file')} failed, {share}")
    elif last.files:
        parts.append("every file could be read")
    only = "" if before else "The only run so far: "
    text = f"{only}{'; '.join(part for part in parts if part)}"
    return f"Last run: {text}" if before else text


def _compare_flagged(last: PastRun, before: Sequence[PastRun]) -> str | None:
    if last.rate is None or last.flagged is None:
        return None
    said = f"{last.flagged:,} of {words.plural(last.ok, 'image')} flagged, {words.format_percent(last.rate)}"
    rates = [run.rate for run in before if run.rate is not None]
    if not rates:
        return said
    usual = median(rates)
    least, most = np.quantile(rates, [1 - _USUAL, _USUAL]).tolist()
    expected = max(usual, last.promised or last.asked or 0.0)  # as many as were asked are no news
    how = "as usual"
    if last.rate > most and find_tail_probability(last.flagged, last.ok, expected) < LEVEL:
        how = "more than usual"
    elif last.rate < least and find_tail_probability(last.ok - last.flagged, last.ok, 1 - usual) < LEVEL:
        how = "fewer than usual"
    return f"{said}, {how} ({words.format_percent(usual)})"


def _compare_error_bars(last: PastRun, before: Sequence[PastRun]) -> str:
    said = words.plural(last.ok, "image")
    width = scale_error_bar(last)
    if width is None:
        return said
    unit = name_unit([last])
    widths = [each for run in before if (each := scale_error_bar(run)) is not None]
    usual = median(widths) if widths else None
    usually = _add_usual(words.format_number(usual, 3), usual)
    return f"{said}, mean error bar {words.format_number(width, 3)}{unit}{usually}"


def _add_usual(text: str, usual: float | None) -> str:
    return "" if usual is None else f" (usually {text})"


def find_tail_probability(count: int, total: int, share: float) -> float:
    """Return the probability of `count` or more out of `total`, each with probability `share`.

    >>> round(find_tail_probability(1, 10, 0.01), 4), find_tail_probability(0, 10, 0.01)
    (0.0956, 1.0)
    """
    if count <= total * share or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    # Above the mean terms fall, each by the ratio to the one before it.
    log_term = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
    term = math.exp(log_term + count * math.log(share) + (total - count) * math.log1p(-share))
    whole = 0.0
    if term == 0:  # smaller than what a float holds
        return 0.0
    for k in range(count, total + 1):
        whole += term
        if term < 1e-15 * whole:
            break
        term *= (total - k) / (k + 1) * share / (1 - share)
    return min(1.0, whole)
