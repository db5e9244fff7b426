"""The page of `kintsugi score`: verdicts, distribution with a movable threshold, worst images, groups, evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.report import sentences
from pipelines.report.charts import lay_out_evaluation
from pipelines.report.drift_block import lay_out_drift
from pipelines.report.folder import (
    EVALUATION,
    REVIEW,
    CalibrationFacts,
    Evaluation,
    GroupedFacts,
    Picture,
    ReviewFacts,
    Run,
    read_record,
)
from pipelines.report.histogram import bin_scores
from pipelines.report.page import Sections, pack
from pipelines.report.pictures import make_legend, pack_gallery
from pipelines.report.rows import ABNORMAL, FAILED, NORMAL, UNJUDGED, Rows


def describe_scores(out: Path, run: Run, rows: Rows, gallery: Sequence[Picture]) -> Sections:
    """Collect what the page of `kintsugi score` shows. Everything that its script does not change is decided here.

    Raises:
        FolderError: evaluation.json is damaged.
    """
    calibration, grouped = run.calibration, _find_groups(run.calibration)
    failed, flagged, unjudged = rows.count(FAILED), rows.count(ABNORMAL), rows.count(UNJUDGED)
    evaluation, review = read_record(out / EVALUATION, Evaluation), read_record(out / REVIEW, ReviewFacts)
    is_mapped = not gallery or any(picture.heatmap for picture in gallery)
    claim = calibration or RateClaim()
    # Groups and other rules have words of their own for what is promised; where nothing is, this holds for them, too.
    is_claimed = _is_movable(rows, calibration) or not claim.is_proved
    facts = {
        "headline": sentences.summarise_scores(
            ok=rows.total - failed,
            failed=failed,
            judged=rows.total - failed - unjudged,
            flagged=flagged,
            rate=calibration.false_alarms if calibration else None,
            rule=None if calibration is None or calibration.grouped else calibration.rule,
            unpromised=grouped.unpromised if grouped else 0,
            claim=claim,
            by_calibration=run.against.flagged.get("calibration") if run.against else None,
        ),
        "drift": lay_out_drift(run.drift, run.against, rows.total - failed),
        "review": tuple(sentences.describe_review(review)) if review else (),
        "done": "scored",
        "normal": rows.count(NORMAL),
        "abnormal": flagged,
        "classes": [
            (name, rows.labels[name, False], rows.labels[name, True])
            for name in sorted({name for name, _ in rows.labels})
        ],
        "scored": len(rows.known_scores),
        "threshold": rows.threshold if _is_movable(rows, calibration) else None,
        "asked": calibration.false_alarms if calibration else None,
        "claim": claim,
        "claimed": sentences.describe_claim(claim, calibration.false_alarms) if calibration and is_claimed else (),
        "calibration": calibration,
        "grouped": grouped,
        "mapped": is_mapped,
        "legend": make_legend(run.heat) if run.heat and is_mapped else None,
        "cautions": sentences.warn_of_scores(run.model.metadata, claim),
        "evaluation": lay_out_evaluation(evaluation) if evaluation else None,
    }
    data = {
        "histogram": _pack_histogram(rows, calibration),
        "threshold": _pack_threshold(rows, calibration),
        "gallery": pack_gallery(gallery, run.heat, out, run.model.metadata),
    }
    scripts = ("threshold.js", "histogram.js", "gallery.js", "score.js")
    return Sections(template="score.html", facts=facts, columns={}, data=data, scripts=scripts)


def _find_groups(calibration: CalibrationFacts | None) -> GroupedFacts | None:
    """Return how sub-folders were judged; None where they were not judged apart."""
    grouped = calibration.grouped if calibration else None
    return grouped if grouped and not grouped.is_plain else None


def _pack_histogram(rows: Rows, calibration: CalibrationFacts | None) -> dict[str, object] | None:
    scores = rows.known_scores
    if not len(scores):
        return None
    bins = bin_scores(scores, _finite_scores(calibration), rows.threshold)
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


def _pack_threshold(rows: Rows, calibration: CalibrationFacts | None) -> dict[str, object] | None:
    """Return what the movable threshold needs; None where it cannot be moved.

    `above` counts all images above each calibration score, so that a moved threshold gives exact counts even where
    only the worst rows are in the page.
    """
    if not _is_movable(rows, calibration):
        return None
    held_out = np.unique(_finite_scores(calibration))[::-1]
    ascending = np.sort(rows.known_scores)
    above = len(ascending) - np.searchsorted(ascending, held_out, side="right")
    every = np.sort(_finite_scores(calibration))
    return {
        "value": rows.threshold,
        "falseAlarms": calibration.false_alarms if calibration else None,
        "proved": calibration is None or calibration.is_proved,
        "isWhat": (calibration or RateClaim()).is_what,
        "calibration": pack(held_out, "f8"),
        "calibrationAbove": pack(len(every) - np.searchsorted(every, held_out, side="right"), "u4"),
        "n": len(every),
        "above": pack(above, "u4"),
    }


def _is_movable(rows: Rows, calibration: CalibrationFacts | None) -> bool:
    """Return whether one threshold judged all images at a false-alarm rate: not so by groups, or under another rule."""
    if _find_groups(calibration):
        return False
    return rows.has_threshold and not (calibration and calibration.rule)


def _finite_scores(calibration: CalibrationFacts | None) -> NDArray[np.float64]:
    scores = np.array(calibration.scores if calibration else (), np.float64)
    return scores[np.isfinite(scores)]
