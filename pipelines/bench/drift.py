"""The benchmark of drift: what verdicts are worth once light or camera have changed.

train once -> score the test images under each change -> draw folders of good images and defects -> verdicts of each
folder, against calibration, against the folder and chosen automatically -> realised false-alarm rate and recall
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from pipelines.anomaly.against import Against, judge_run
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import STATISTICS
from pipelines.anomaly.figures_of_merit import separation
from pipelines.anomaly.image_facts import image_facts
from pipelines.anomaly.verdicts import Verdicts
from pipelines.base.files import write_atomically, write_json
from pipelines.base.progress import progress
from pipelines.bench.anomaly import Bench, bench_anomaly
from pipelines.bench.dataset import Half, view_of
from pipelines.bench.page import format_number, format_table
from pipelines.bench.shifts import OF_COLOUR, SHIFTS
from pipelines.images import Failed, find_images
from pipelines.models.inputs import decode_for
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model

log = logging.getLogger(__name__)

RATE = 0.05  # of false alarms that is asked for
PREVALENCES = (0.01, 0.05, 0.2)  # share of defects in a folder
SIZES = (50, 200, 1_000)  # images of a folder
DRAWS = 40  # folders of each kind
SHOWN_SIZE, SHOWN_PREVALENCE = 200, 0.05  # of the first table
UNCHANGED = "none"
WAYS: tuple[Against, ...] = get_args(Against)

Columns = dict[str, np.ndarray]  # scores and facts of images, by name, and whether they are defective


def bench_drift(
    datasets: Sequence[Path | str],
    out: Path | str,
    *,
    half: Half = "all",
    overrides: Sequence[str] = (),
    max_train: int | None = None,
    fresh: bool = False,
) -> Bench:
    """Train a model on each data set and measure its verdicts under changes of light and camera.

    Goes on where it was stopped: trained models and scores are kept in the output folder. The arguments are those of
    `bench_anomaly`.

    Returns:
        Figures and tables, as written to `drift.json` and `drift.md`.

    Raises:
        KintsugiError: Wrong usage or bad input as a whole.
    """
    folders, out = [Path(dataset).resolve() for dataset in datasets], Path(out).resolve()
    trained = bench_anomaly(
        folders, out, methods=("ours",), seeds=1, half=half, overrides=overrides, max_train=max_train, fresh=fresh
    )
    if trained.failed:
        return trained
    cells: list[dict[str, Any]] = []
    for folder in folders:
        place = out / folder.name if len(folders) > 1 else out
        document = json.loads((place / "bench.json").read_text(encoding="utf-8"))
        file = find_model(next(cell["file"] for cell in document["cells"] if cell["method"] == "ours"))
        calibration = file.calibration()
        assert calibration is not None  # noqa: S101 - a trained model has one
        session = Session(file, device="cpu", threads=1)
        for name in SHIFTS:
            if name in OF_COLOUR and session.metadata.channels == 1:
                continue
            kept = place / "shifts" / f"{file.sha256[:12]}-{half}-{name.replace(' ', '_')}.json"
            columns = _read(kept) if kept.is_file() and not fresh else None
            if columns is None:
                columns = _score(session, view_of(folder, half, place / "views") / "test", name)
                write_json(kept, {key: values.tolist() for key, values in columns.items()})
            cells += _simulate(folder.name, name, columns, calibration)
    document = {"cells": cells, "rate": RATE, "draws": DRAWS}
    text = format_page(cells)
    write_json(out / "drift.json", document)
    write_atomically(out / "drift.md", lambda path: path.write_text(text, encoding="utf-8"))
    return Bench(out, document, text, 0)


def _read(path: Path) -> Columns:
    return {name: np.array(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}


def _score(session: Session, test: Path, change: str) -> Columns:
    """Score the test images under a change; equal images are changed equally."""
    files, rows = find_images(test), []
    with progress(log, f"score, {change}", len(files), "images") as advance:
        for image in decode_for(files, session.metadata):
            advance()
            if isinstance(image, Failed):
                continue
            generator = np.random.default_rng(int(image.sha256[:12], 16))
            pixels = SHIFTS[change](image.pixels, generator)
            key = hashlib.sha256(f"{image.sha256} {change}".encode()).hexdigest()
            values = session.run(pixels[None], [key], ("score", "rate", "distortion"))
            scored = {name: float(found[0]) for name, found in values.items()}
            rows.append(scored | image_facts(pixels) | {"bad": not image.file.relative.startswith("good/")})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _simulate(dataset: str, change: str, columns: Columns, calibration: Calibration) -> Iterator[dict[str, Any]]:
    """Draw folders, with replacement, and judge them in every way."""
    bad = columns["bad"].astype(bool)
    good_at, bad_at = np.flatnonzero(~bad), np.flatnonzero(bad)
    auroc = separation(columns["score"][good_at], columns["score"][bad_at])
    rule = Verdicts.of(calibration, max(RATE, calibration.smallest_rate))
    for size in SIZES:
        for prevalence in PREVALENCES:
            seed = hashlib.sha256(f"{dataset} {change} {size} {prevalence}".encode()).digest()
            generator = np.random.default_rng(list(seed))
            found: dict[Against, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(DRAWS):
                defects = round(size * prevalence)
                chosen = np.concatenate([generator.choice(good_at, size - defects), generator.choice(bad_at, defects)])
                of_images = {name: columns[name][chosen] for name in STATISTICS}
                table = pa.table({"status": ["ok"] * size, "path": [""] * size, **of_images})
                for way in WAYS:
                    judgement = judge_run(rule, lambda table=table: [table], against=way)  # type: ignore[misc]
                    threshold = judgement.run.threshold
                    flagged = columns["score"][chosen] > threshold
                    found[way].append({
                        "false_alarms": float(flagged[: size - defects].mean()),
                        # Of all defects of the set: a folder has few.
                        "recall": float((columns["score"][bad_at] > threshold).mean()),
                        "folder": judgement.against == "folder",
                        "drifted": judgement.scores_moved,
                    })  # fmt: skip
            for way, runs in found.items():
                yield {
                    "dataset": dataset, "change": change, "images": size, "prevalence": prevalence, "against": way,
                    "auroc": auroc, **{name: fmean(run[name] for run in runs) for name in runs[0]},
                }  # fmt: skip


def format_page(cells: Sequence[Mapping[str, Any]]) -> str:
    """The tables, which read in a terminal, too."""
    changes = [name for name in SHIFTS if any(cell["change"] == name for cell in cells)]
    sets = list(dict.fromkeys(cell["dataset"] for cell in cells))
    parts = [
        "# Verdicts after a change of light or camera",
        f"Means over {len(sets)} data sets ({', '.join(sets)}); {100 * RATE:g} % false alarms asked; folders of "
        f"{SHOWN_SIZE} images with {100 * SHOWN_PREVALENCE:g} % of defects, {DRAWS} draws of each. False alarms / "
        "recall.",
        format_table(["change", "AUROC", *WAYS, "auto uses folder"], [_row_of_change(cells, name) for name in changes]),
        "By folder, means over data sets and changes (unchanged images left out):",
        format_table(["images", "defects", *WAYS], [*_rows_of_folders(cells)]),
        _summarise(cells),
    ]
    return "\n\n".join(parts) + "\n"


def _row_of_change(cells: Sequence[Mapping[str, Any]], change: str) -> list[str]:
    chosen = [c for c in cells if (c["change"], c["images"], c["prevalence"]) == (change, SHOWN_SIZE, SHOWN_PREVALENCE)]
    by_way = {way: [cell for cell in chosen if cell["against"] == way] for way in WAYS}
    auroc = format_number(fmean(cell["auroc"] for cell in chosen))
    used = f"{fmean(cell['folder'] for cell in by_way['auto']):.0%}"
    return [change, auroc, *(_rates(of_way) for of_way in by_way.values()), used]


def _rows_of_folders(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for size in SIZES:
        for prevalence in PREVALENCES:
            of_kind = [c for c in _changed(cells) if (c["images"], c["prevalence"]) == (size, prevalence)]
            yield [
                str(size), f"{prevalence:.0%}",
                *(_rates([cell for cell in of_kind if cell["against"] == way]) for way in WAYS),
            ]  # fmt: skip


def _summarise(cells: Sequence[Mapping[str, Any]]) -> str:
    """How often false alarms stay within twice the rate, and how much recall is left, as a sentence."""
    recall = {
        (c["dataset"], c["images"], c["prevalence"]): c["recall"]
        for c in cells
        if (c["change"], c["against"]) == (UNCHANGED, "calibration")
    }
    shown = [
        c for c in _changed(cells) if c["against"] == "auto" and c["images"] == SHOWN_SIZE and c["prevalence"] <= 0.05
    ]
    within = fmean(c["false_alarms"] <= 2 * RATE for c in shown)
    kept = [c["recall"] / max(recall[c["dataset"], c["images"], c["prevalence"]], 1e-9) for c in shown]
    return (
        f"Of {len(shown)} data sets and changes with {SHOWN_SIZE} images and at most 5 % of defects, auto keeps false "
        f"alarms within {200 * RATE:g} % in {within:.0%}; recall is {fmean(kept):.0%} of that of unchanged images, and "
        f"at least four fifths of it in {fmean(each >= 0.8 for each in kept):.0%}."
    )


def _changed(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [cell for cell in cells if cell["change"] != UNCHANGED]


def _rates(cells: Sequence[Mapping[str, Any]]) -> str:
    return f"{fmean(c['false_alarms'] for c in cells):.2f} / {fmean(c['recall'] for c in cells):.2f}"
