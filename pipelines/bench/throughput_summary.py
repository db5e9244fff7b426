"""The table of throughput: medians over runs, ratios within each turn, stages, and growth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pipelines.base.cores import usable_cores

Answers = Mapping[str, Sequence[dict[str, Any]]]


def format_table(answers: Answers, titles: Mapping[str, str], runs: int, growth: Sequence[int]) -> str:
    """The whole text.

    Args:
        answers: Of each row, one for each run.
        titles: Of the rows that are shown, by name, in order.
        runs: Of each row.
        growth: Counts of images that the batch job was run on besides.
    """
    rates = {name: [_rate(answer) for answer in found] for name, found in answers.items()}
    rows = [
        f"Medians of {runs} runs in turns, {usable_cores()} cores. Ratios are medians of the ratios within each turn.",
        "",
        "| row | images | images/s | the batch job is faster by | hours for a million images | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in titles.items():
        found, speed = answers[name], median(rates[name])
        ratio = "-"
        if "ours" in rates and name != "ours":
            ratio = f"{median(mine / other for mine, other in zip(rates['ours'], rates[name], strict=True)):.2f}"
        peak = median(answer["peak_mib"] for answer in found)
        rows.append(
            f"| {title} | {found[0]['images']:,} | {speed:.1f} | {ratio} | {1e6 / speed / 3600:.1f} | {peak:.0f} |"
        )
    if "ours" in answers:
        first = median(answer["first_row_seconds"] for answer in answers["ours"])
        rows += ["", f"From the start of the process to the first scored image: {first:.2f} s."]
    if "limits" in answers:
        stages = [answer["stages"] for answer in answers["limits"]]
        each = {stage: median(found[stage] for found in stages) for stage in stages[0]}
        count = answers["limits"][0]["images"]
        words = ", ".join(f"{stage} {count / seconds:,.0f}/s" for stage, seconds in each.items())
        rows += ["", f"Stages by themselves: {words}."]
    if growth:
        rows += ["", "| images | images/s | peak MiB |", "|---|---|---|"]
        for count in growth:
            (answer,) = answers[f"growth-{count}"]
            rows.append(f"| {count:,} | {_rate(answer):.1f} | {answer['peak_mib']:.0f} |")
    return "\n".join(rows)


def _rate(answer: dict[str, Any]) -> float:
    return float(answer["images"] / answer["seconds"])
