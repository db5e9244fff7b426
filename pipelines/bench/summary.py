"""From cells to the table: means over seeds with their spread, ratios against a baseline, JSON and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from textwrap import shorten
from typing import Any

from pipelines.bench.cells import Result
from pipelines.bench.methods import BASELINES, Method, Published

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "aupro")
UNSTEADY = 1.2  # greatest over least, from which on a cost is shown with both
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
        **{name: done[0][name] for name in ("size", "n_train", "device", "note")},
    }


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


def format_page(document: dict[str, Any]) -> str:
    """The whole document as a page that reads in a terminal, too."""
    rows: dict[str, dict[str, Any]] = document["methods"]
    done = {name: row for name, row in rows.items() if row["seeds"]}
    parts = [f"# Anomaly detection on {document['dataset']}", *_protocol(document)]
    parts.append(_table(_main_head(), [*_main_rows(rows), *_published_rows(document["published"])]))
    if done:
        defects = list(next(iter(done.values()))["defects"])
        parts.append("Image AUROC by defect, each against all good test images:")
        parts.append(
            _table(
                ["method", *defects],
                [
                    [row["title"], *(_number(row["defects"].get(defect, {}).get("image_auroc")) for defect in defects)]
                    for row in done.values()
                ],
            )
        )
    if document["ratios"]:
        parts.append(
            f"Ratios to {rows[document['baseline']]['title']} (1 - AUROC is of images, below 1 is better; "
            "images/s above 1 is faster):"
        )
        parts.append(
            _table(
                ["method", "1 - AUROC", "train s", "images/s", "peak memory"],
                [
                    [rows[name]["title"], *(_ratio(values[key]) for key in ("missed", *COSTS))]
                    for name, values in document["ratios"].items()
                ],
            )
        )
    notes = [f"- {row['title']}: {row['note']}; {_by(row['size'])} pixels, {row['device']}" for row in done.values()]
    if notes:
        parts.append("\n".join(["What each row is:", "", *notes]))
    failures = [
        f"- {row['title']}, seed {seed}: {_one_line(reason)}"
        for row in rows.values()
        for seed, reason in row["failed"].items()
    ]
    if failures:
        parts.append("\n".join(["What failed, and why:", "", *failures]))
    return "\n\n".join(parts) + "\n"


def _protocol(document: dict[str, Any]) -> list[str]:
    settings = document["settings"]
    half = {"all": "all test images", "A": "half A of the test images", "B": "half B of the test images"}
    counts = document["images"]
    told = f"{counts['n_good']} good and {counts['n_bad']} defective" if counts else "none measured yet"
    learnt = f" Every method learns from the same {counts['n_train']} good images." if counts else ""
    lines = [f"Measured on {half[settings['half']]}: {told}.{learnt}"]
    lines.append(
        "Figures are means over seeds with [least, greatest] and ± the standard deviation; a method that no seed "
        "changes is run once. Training starts from decoded images and ends with what can score (for Kintsugi's rows: "
        "exported, compared, calibrated, registered); images/s counts decoding, scoring and full-size maps."
    )
    if settings["overrides"]:
        lines.append(f"Settings: `{' '.join(settings['overrides'])}`.")
    return lines


def _main_head() -> list[str]:
    return [
        "method", "seeds", "image AUROC", "image AP", "pixel AUROC", "AUPRO", "train s", "images/s", "peak MiB",
    ]  # fmt: skip


def _main_rows(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    table = []
    for row in rows.values():
        if row["seeds"]:
            costs = [_cost(row["train_seconds"]), _cost(row["images_per_second"]), _cost(row["peak_mib"])]
            table.append([row["title"], str(len(row["seeds"])), *(_figure(row[name]) for name in FIGURES), *costs])
        for seed, reason in row["failed"].items():
            told = f"failed: {shorten(_one_line(reason), 80, placeholder=' ...')}"
            table.append([row["title"], f"seed {seed}", told, *["-"] * (len(_main_head()) - 3)])
    return table


def _published_rows(published: Sequence[dict[str, Any]]) -> list[list[str]]:
    rest = ["-"] * (len(_main_head()) - 3)
    return [
        [f"published: {item['title']}", "-", f"{item['image_auroc']:.3f} (80/20 split)", *rest] for item in published
    ]


def as_published(published: Sequence[Published]) -> list[dict[str, Any]]:
    """For the document."""
    return [{"title": item.title, "image_auroc": item.image_auroc} for item in published]


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if figure["sd"] is None:
        return f"{figure['mean']:.4f}"
    return f"{figure['mean']:.4f} [{figure['min']:.4f}, {figure['max']:.4f}] ± {figure['sd']:.4f}"


def _number(figure: dict[str, Any] | None) -> str:
    return "-" if figure is None else f"{figure['mean']:.3f}"


def _cost(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    mean, least, most = (f"{figure[key]:.{1 if figure[key] < 100 else 0}f}" for key in ("mean", "min", "max"))
    return f"{mean} [{least}, {most}]" if figure["max"] > UNSTEADY * figure["min"] else mean


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(side) for side in size)


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    # A reason may be long: it widens its column only up to here.
    widths = [min(52, max(len(row[column]) for row in (head, *rows))) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    top = "| " + " | ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)) + " |"
    return "\n".join([top, "| " + " | ".join("-" * width for width in widths) + " |", *lines])
