"""The page of one data set: the table, recall at false-alarm rates, comparisons, defects, ratios, notes, failures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import shorten
from typing import Any

from pipelines.bench.false_alarm_rates import RATES
from pipelines.bench.summary import COSTS, FIGURES, means_of

UNSTEADY = 1.2  # greatest over least, from which on a cost is shown with both


def format_page(document: dict[str, Any]) -> str:
    """The whole document as a page that reads in a terminal, too."""
    rows: dict[str, dict[str, Any]] = document["methods"]
    done = {name: row for name, row in rows.items() if row["seeds"]}
    parts = [f"# Anomaly detection on {document['dataset']}", *_protocol(document)]
    parts.append(format_table(_main_head(), [*_main_rows(rows), *_published_rows(document["published"])]))
    if done:
        counts = {row["n_calibrate"] for row in done.values() if row["n_calibrate"]}
        parts += [
            "Recall at false-alarm rates:",
            format_table(["method", *rates_head()], _rates_rows(done)),
            *rates_notes(counts),
        ]
    if comparisons := document["comparisons"]:
        titles = {name: row["title"] for name, row in rows.items()}
        parts += format_comparisons(comparisons, titles, [document["dataset"]])
    if done:
        defects = list(next(iter(done.values()))["defects"])
        parts.append("Image AUROC by defect, each against all good test images:")
        parts.append(
            format_table(
                ["method", *defects],
                [
                    [row["title"], *(format_number(_auroc_of(row, defect)) for defect in defects)]
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
            format_table(
                ["method", "1 - AUROC", "train s", "images/s", "peak memory"],
                [
                    [rows[name]["title"], *(_ratio(values[key]) for key in ("missed", *COSTS))]
                    for name, values in document["ratios"].items()
                ],
            )
        )
    notes = [f"- {row['title']}: {row['note']}{_by(row)}" for row in done.values()]
    if notes:
        parts.append("\n".join(["What each row is:", "", *notes]))
    failures = [
        f"- {row['title']}, seed {seed}: {one_line(reason)}"
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
            told = f"failed: {shorten(one_line(reason), 80, placeholder=' ...')}"
            table.append([row["title"], f"seed {seed}", told, *["-"] * (len(_main_head()) - 3)])
    return table


def _published_rows(published: Sequence[dict[str, Any]]) -> list[list[str]]:
    rest = ["-"] * (len(_main_head()) - 3)
    return [
        [f"published: {item['title']}", "-", f"{item['image_auroc']:.3f} (80/20 split)", *rest] for item in published
    ]


def rates_head() -> list[str]:
    """The columns of `rates_cells`."""
    return [f"{which} {rate * 100:g} %" for which in ("common", "own") for rate in RATES]


def rates_cells(rates: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Recall at the common rates, then by the row's own thresholds with the share of good images that they flag."""
    own = []
    for figures in rates.values():
        recall, rate = figures["own_recall"], figures["own_rate"]
        own.append("-" if recall is None or rate is None else f"{recall:.3f} at {rate:.1%}")
    return [*(format_number(figures["recall"]) for figures in rates.values()), *own]


def rates_notes(counts: Collection[int]) -> list[str]:
    """How the rates are to be read, and which of them `counts` calibration images are too few to promise."""
    notes = [
        "Common: the threshold flags exactly that share of the good test images, interpolated between two scores. "
        "Own: the threshold comes from good training images that the method was not fitted on, and the share of good "
        "test images that it flags stands beside the recall. Only Kintsugi's own row moves scores of folds to the "
        "scale of the model that is fitted to all; without that, a threshold is stricter than asked."
    ]
    if counts:
        images = " or ".join(map(str, sorted(counts)))
        least = [1 / (count + 1) for count in sorted(counts)]
        rates = " or ".join(f"{rate:.1%}" for rate in least)
        few = f"; where these are too few for a rate, the least that they can promise, {rates}, takes its place"
        notes.append(f"Calibration images of a row: {images}{few if least[0] > RATES[0] else ''}.")
    return notes


def _rates_rows(rows: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    return [[row["title"], *rates_cells(means_of(row)["rates"])] for row in rows.values()]


def format_comparisons(comparisons: dict[str, Any], titles: Mapping[str, str], sets: Sequence[str]) -> list[str]:
    """The differences between rows on each data set, and in the mean where there are several."""
    head = ["minus", "data set", "image AUROC", f"recall at {comparisons['rate']:.0%}"]
    table = []
    for name, row in comparisons["rows"].items():
        parts = [(dataset, row["sets"][dataset]) for dataset in sets if dataset in row["sets"]]
        if len(sets) > 1:
            parts.append((f"mean of {len(parts)}", row["mean"]))
        for which, figures in parts:
            table.append([titles[name], which, _difference(figures["image_auroc"]), _difference(figures["recall"])])
    told = (
        f"{titles[comparisons['subject']]} minus each other row on the same images, with {comparisons['level']:.0%} "
        f"intervals of {comparisons['draws']} bootstrap draws of images (seeds are not drawn):"
    )
    return [told, format_table(head, table)]


def _difference(figure: Mapping[str, float]) -> str:
    return f"{figure['difference']:+.4f} [{figure['low']:+.4f}, {figure['high']:+.4f}]"


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if figure["sd"] is None:
        return f"{figure['mean']:.4f}"
    return f"{figure['mean']:.4f} [{figure['min']:.4f}, {figure['max']:.4f}] ± {figure['sd']:.4f}"


def format_number(value: float | None) -> str:
    """A figure between 0 and 1."""
    return "-" if value is None else f"{value:.3f}"


def format_cost(value: float | None) -> str:
    """A time, a speed or a memory: one decimal below 100."""
    return "-" if value is None else f"{value:.{1 if value < 100 else 0}f}"


def _cost(figure: dict[str, Any] | None) -> str:
    """A cost, with the least and the greatest where seeds differ much."""
    if figure is None:
        return "-"
    mean, least, most = (format_cost(figure[key]) for key in ("mean", "min", "max"))
    return f"{mean} [{least}, {most}]" if figure["max"] > UNSTEADY * figure["min"] else mean


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _auroc_of(row: dict[str, Any], defect: str) -> float | None:
    figure = row["defects"].get(defect, {}).get("image_auroc")
    return None if figure is None else float(figure["mean"])


def _by(row: dict[str, Any]) -> str:
    return f"; {' x '.join(str(side) for side in row['size'])} pixels, {row['device']}" if row["size"] else ""


def one_line(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.replace("|", "/").split())


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    # A reason may be long: it widens its column only up to here.
    widths = [min(52, max(len(row[column]) for row in (head, *rows))) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    top = "| " + " | ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)) + " |"
    return "\n".join([top, "| " + " | ".join("-" * width for width in widths) + " |", *lines])
