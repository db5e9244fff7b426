"""Several data sets in one table: each row on each set, its means over the sets, and differences between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pipelines.bench.page import (
    format_comparisons,
    format_cost,
    format_number,
    format_table,
    one_line,
    rates_cells,
    rates_head,
    rates_notes,
)
from pipelines.bench.paired_bootstrap import Samples, compare
from pipelines.bench.summary import means_of


def join(documents: Mapping[str, dict[str, Any]], samples: Mapping[str, Mapping[str, Samples]]) -> dict[str, Any]:
    """Put the documents of several data sets together.

    Args:
        documents: `bench.json` of each, by data set; at least one.
        samples: From `sample_figures`, by data set.

    Returns:
        The joint `bench.json`: of each row its figures by data set (means over seeds) and their means over those data
        sets where they are known.
    """
    first = next(iter(documents.values()))
    names = list(dict.fromkeys(name for document in documents.values() for name in document["methods"]))
    rows = {}
    for name in names:
        of_sets = {dataset: document["methods"][name] for dataset, document in documents.items()}
        figures = {dataset: means_of(row) for dataset, row in of_sets.items() if row["seeds"]}
        rows[name] = {
            "title": next(iter(of_sets.values()))["title"],
            "sets": figures,
            "mean": _average(list(figures.values())) if figures else None,
            "failed": {dataset: row["failed"] for dataset, row in of_sets.items() if row["failed"]},
        }
    counts = {
        dataset: sorted({row["n_calibrate"] for row in document["methods"].values() if row.get("n_calibrate")})
        for dataset, document in documents.items()
    }
    return {
        "datasets": {
            dataset: {"folder": document["folder"], "images": document["images"], "n_calibrate": counts[dataset]}
            for dataset, document in documents.items()
        },
        "settings": first["settings"],
        "methods": rows,
        "comparisons": compare(samples),
        "machine": first["machine"],
        "versions": first["versions"],
    }


def _average(figures: Sequence[Any]) -> Any:  # noqa: ANN401 - a tree of numbers
    """The mean of trees of equal form, leaf by leaf; a leaf that is None everywhere stays None."""
    if isinstance(figures[0], dict):
        return {name: _average([each[name] for each in figures]) for name in figures[0]}
    known = [value for value in figures if value is not None]
    return fmean(known) if known else None


def format_joint_page(document: dict[str, Any]) -> str:
    """The joint document as a page that reads in a terminal, too."""
    datasets: dict[str, Any] = document["datasets"]
    rows: dict[str, Any] = document["methods"]
    parts = [f"# Anomaly detection on {len(datasets)} data sets", *_protocol(document)]
    head = ["method", "data set", "image AUROC", *rates_head(), "AUPRO", "train s", "images/s"]
    table = []
    for row in rows.values():
        for dataset in datasets:
            if dataset in row["sets"]:
                table.append([row["title"], dataset, *_cells(row["sets"][dataset])])
            elif dataset in row["failed"]:
                table.append([row["title"], dataset, "failed", *["-"] * (len(head) - 3)])
        if row["mean"]:
            table.append([row["title"], f"mean of {len(row['sets'])}", *_cells(row["mean"])])
    parts.append(format_table(head, table))
    parts += rates_notes({count for each in datasets.values() for count in each["n_calibrate"]})
    if document["comparisons"]:
        titles = {name: row["title"] for name, row in rows.items()}
        parts += format_comparisons(document["comparisons"], titles, list(datasets))
    failures = [
        f"- {row['title']} on {dataset}, seed {seed}: {one_line(reason)}"
        for row in rows.values()
        for dataset, failed in row["failed"].items()
        for seed, reason in failed.items()
    ]
    if failures:
        parts.append("\n".join(["What failed, and why:", "", *failures]))
    return "\n\n".join(parts) + "\n"


def _protocol(document: dict[str, Any]) -> list[str]:
    settings = document["settings"]
    half = "All test images" if settings["half"] == "all" else f"Half {settings['half']} of the test images"
    counts = [
        f"{dataset} {each['images']['n_good']} good and {each['images']['n_bad']} defective"
        for dataset, each in document["datasets"].items()
        if each["images"]
    ]
    lines = [
        f"{half}: {'; '.join(counts) or 'none measured yet'}. Figures are means over seeds; a mean over data sets "
        "gives each of them the same weight. The page of each data set is in the folder of its name."
    ]
    if settings["overrides"]:
        lines.append(f"Settings: `{' '.join(settings['overrides'])}`.")
    return lines


def _cells(figures: Mapping[str, Any]) -> list[str]:
    return [
        "-" if figures["image_auroc"] is None else f"{figures['image_auroc']:.4f}",
        *rates_cells(figures["rates"]),
        format_number(figures["aupro"]),
        *(format_cost(figures[name]) for name in ("train_seconds", "images_per_second")),
    ]
