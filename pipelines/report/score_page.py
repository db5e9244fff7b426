"""The page of `kintsugi score`: verdicts, distribution with a movable threshold, worst images, every row, the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.base.safe_text import printable
from pipelines.report import words
from pipelines.report.charts import evaluation_figures
from pipelines.report.facts import cautions_of_scores, describe_metadata, missing
from pipelines.report.folder import (
    EVALUATION,
    GALLERY,
    RESULTS,
    CalibrationFacts,
    Evaluation,
    Picture,
    Run,
    read_gallery,
    read_record,
)
from pipelines.report.histogram import histogram
from pipelines.report.page import SHARED_SCRIPTS, SHARED_STYLES, packed, render_page, write_page
from pipelines.report.pictures import gallery_data, legend
from pipelines.report.rows import (
    ABNORMAL,
    FAILED,
    MEASURES,
    NORMAL,
    UNJUDGED,
    Rows,
    column,
    floats,
    read_rows,
)

SHOWN_ROWS = 10_000  # more would take more memory than the model, and nobody reads them here
REPORT = "report.html"
_STYLES = (*SHARED_STYLES, "score.css")
_SCRIPTS = (*SHARED_SCRIPTS, "threshold.js", "histogram.js", "gallery.js", "table.js", "score.js")


def write_score_report(out: Path, run: Run | None) -> Path:
    """Write OUT/report.html from what is in OUT, whether the run has finished or not.

    Args:
        out: The folder.
        run: What its run.json says; None where there is none.

    Returns:
        The page. It is the same to the byte for the same folder.

    Raises:
        FolderError: there is nothing to report on, or a file is damaged, or OUT cannot be written.
    """
    rows = read_rows(out / RESULTS, limit=SHOWN_ROWS)
    gallery = read_gallery(out / GALLERY)
    evaluation = read_record(out / EVALUATION, Evaluation)
    known = run or Run()
    html = render_page(
        "score.html",
        _facts(rows, run, gallery, evaluation),
        data={
            "rows": _row_data(rows),
            "histogram": _histogram_data(rows, run),
            "threshold": _threshold_data(rows, run),
            "gallery": gallery_data(gallery or (), known.heat, out),
        },
        styles=_STYLES,
        scripts=_SCRIPTS,
    )
    write_page(out / REPORT, html)
    return out / REPORT


def _facts(
    rows: Rows, run: Run | None, gallery: tuple[Picture, ...] | None, evaluation: Evaluation | None
) -> dict[str, object]:
    """What the template shows. Everything that the script does not change is decided here."""
    known = run or Run()
    calibration = known.calibration
    failed, flagged = rows.count(FAILED), rows.count(ABNORMAL)
    ok = rows.total - failed
    rate = calibration.false_alarms if calibration else None
    rule = None if calibration is None or calibration.grouped else calibration.rule
    grouped = calibration.grouped if calibration and calibration.grouped and not calibration.grouped.is_plain else None
    judged = ok - rows.count(UNJUDGED)
    mapped = not gallery or any(picture.heatmap for picture in gallery)
    return {
        "run": known,
        "model_name": known.model.name or rows.model or "unknown model",
        "model_version": known.model.version or rows.version,
        "headline": words.headline(
            ok=ok,
            failed=failed,
            judged=judged,
            flagged=flagged,
            rate=rate,
            rule=rule,
            unpromised=grouped.unpromised if grouped else 0,
        ),
        "partial": missing(rows, run, pictured=gallery is not None or not len(rows.known_scores)),
        "counts": {"normal": rows.count(NORMAL), "abnormal": flagged, "failed": failed, "total": rows.total},
        "unjudged": rows.count(UNJUDGED),
        "judged": judged,
        "classes": [
            (name, rows.labels[name, False], rows.labels[name, True])
            for name in sorted({name for name, _ in rows.labels})
        ],
        "scored": len(rows.known_scores),
        "threshold": rows.threshold if _movable(rows, run) else None,
        "promised": rate,
        "calibration": calibration,
        "grouped": grouped,
        "has_gallery": bool(gallery),
        "mapped": mapped,
        "legend": legend(known.heat) if known.heat and mapped else None,
        "failures": rows.failures,
        "shown_rows": len(rows.worst) if rows.truncated else None,
        "cautions": cautions_of_scores(known.model.metadata),
        "metadata": describe_metadata(known.model.metadata),
        "stages": [(name, known.timings.get(name)) for name in ("decode", "run", "write")],
        "total_time": known.timings.get("total"),
        "throughput": known.timings.get("images_per_second"),
        "evaluation": evaluation_figures(evaluation) if evaluation else None,
    }


def _row_data(rows: Rows) -> dict[str, object]:
    """The rows shown, as columns: text by folder and name, numbers packed, columns without a figure left out."""
    folders: dict[str, int] = {}
    names, places = [], []
    for path in column(rows.worst, "path", pa.string()).to_pylist():
        folder, slash, name = printable(path).rpartition("/")
        places.append(folders.setdefault(folder + slash, len(folders)))
        names.append(name)
    notes: dict[str | None, int] = {None: 0}
    note = [notes.setdefault(text, len(notes)) for text in column(rows.worst, "note", pa.string()).to_pylist()]
    classes: dict[str | None, int] = {None: 0}
    label = [classes.setdefault(name, len(classes)) for name in column(rows.worst, "label", pa.string()).to_pylist()]
    data: dict[str, object] = {
        "total": rows.total,
        "counts": [rows.count(code) for code in (NORMAL, ABNORMAL, FAILED, UNJUDGED)],
        "names": names,
        "folders": list(folders),
        "folder": packed(np.array(places), "u4"),
        "notes": [printable(text or "") for text in notes],
        "note": packed(np.array(note), "u4") if len(notes) > 1 else None,
        "verdict": packed(rows.worst_verdicts, "u1"),
        # Scores keep all their bits, since verdicts are made of them; the rest is only looked at.
        "score": packed(_scores(rows), "f8"),
    }
    if len(classes) > 1:
        data |= {"labels": [printable(name or "") for name in classes], "label": packed(np.array(label), "u4")}
    for name in (*MEASURES, "label_probability"):
        values = floats(rows.worst, name)
        if np.isfinite(values).any():
            data[name] = packed(values, "f4")
    for name in ("width", "height"):
        data[name] = packed(np.nan_to_num(floats(rows.worst, name)), "u4")
    return data


def _scores(rows: Rows) -> NDArray[np.float64]:
    scores = np.where(rows.worst_verdicts == FAILED, np.nan, floats(rows.worst, "score"))
    return np.where(np.isfinite(scores), scores, np.nan)


def _histogram_data(rows: Rows, run: Run | None) -> dict[str, object] | None:
    scores = rows.known_scores
    if not len(scores):
        return None
    bins = histogram(scores, _calibration_scores(run.calibration if run else None), rows.threshold)
    return {
        "edges": bins.edges,
        "images": bins.images,
        "calibration": bins.calibration,
        "below": bins.below,
        "beyond": bins.beyond,
        "scored": len(scores),
        "normal": rows.count(NORMAL),
        "threshold": rows.threshold if rows.has_threshold else None,
    }


def _threshold_data(rows: Rows, run: Run | None) -> dict[str, object] | None:
    """What the movable threshold needs; None where it cannot be moved.

    `above` counts all images above each calibration score, so that a moved threshold gives exact counts even where
    only the worst rows are in the page.
    """
    if not _movable(rows, run):
        return None
    calibration = run.calibration if run else None
    held_out = np.unique(_calibration_scores(calibration))[::-1]
    ascending = np.sort(rows.known_scores)
    above = len(ascending) - np.searchsorted(ascending, held_out, side="right")
    every = np.sort(_calibration_scores(calibration))
    return {
        "value": rows.threshold,
        "falseAlarms": calibration.false_alarms if calibration else None,
        "calibration": packed(held_out, "f8"),
        "calibrationAbove": packed(len(every) - np.searchsorted(every, held_out, side="right"), "u4"),
        "n": len(every),
        "above": packed(above, "u4"),
    }


def _movable(rows: Rows, run: Run | None) -> bool:
    """Whether one threshold judged all images and promises a rate: not so by groups, or under another rule."""
    calibration = run.calibration if run else None
    if calibration and calibration.grouped and not calibration.grouped.is_plain:
        return False
    return rows.has_threshold and not (calibration and calibration.rule)


def _calibration_scores(calibration: CalibrationFacts | None) -> NDArray[np.float64]:
    scores = np.array(calibration.scores if calibration else (), np.float64)
    return scores[np.isfinite(scores)]
