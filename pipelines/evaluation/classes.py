"""Figures of merit of a model that tells classes of images, and rejects what is of none of them.

FOLDER/<class>/*   images of a class that the model knows
FOLDER/<other>/*   images of none: each should be rejected (optional)
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.figures_of_merit import image_auroc, share_of
from pipelines.anomaly.group_thresholds import group_of
from pipelines.base.safe_text import printable
from pipelines.batch.schema import Row
from pipelines.data.classes import named
from pipelines.errors import DataError
from pipelines.evaluation.evaluated_images import warn_of_known
from pipelines.evaluation.reliability import calibration_error, count_by_confidence
from pipelines.models.model_file import ModelFile
from pipelines.score import score_folder

log = logging.getLogger(__name__)


def evaluate_classes(
    folder: Path,
    file: ModelFile,
    classes: tuple[str, ...],
    *,
    out: Path | None = None,
    false_alarms: float | None = None,
) -> dict[str, Any]:
    """Label the images of a folder, and compare with the names of its sub-folders.

    Args:
        folder: With sub-folders.
        file: A model that tells classes,
        classes: which it knows.
        out: Output folder for rows and report; none is kept when left out.
        false_alarms: Share of images of known classes that may be rejected; default: the model's.

    Returns:
        `accuracy` over images of known classes, `balanced_accuracy`, the mean over the classes, `accuracy_accepted`
        over those that are not rejected, `ece`, the expected calibration error of the probabilities; `confusion`,
        images by true and by told class; `n_known`, `n_other` (of sub-folders `others`), `n_trained_on` and `n_failed`;
        `rejected_known` and `rejected_other`, shares (null without a calibration); `rejection_auroc`, null where there
        are no other images; `images_per_second`.

    Raises:
        DataError: No image is of a class that the model knows.
    """
    rows: list[tuple[str, str, float, float]] = []
    trained_on, known_before = file.trained_on, 0

    def observe(row: Row, _: NDArray[Any]) -> None:
        nonlocal known_before
        known_before += row["sha256"] in trained_on
        rows.append(_kept(row))

    with tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary:
        place = out or Path(temporary)
        summary = score_folder(
            folder, file, place, false_alarms=false_alarms, fresh=True, drift_below=classes,
            observer=observe, against="calibration",
        )  # fmt: skip
        if loose := sum(not group for group, *_ in rows):
            log.warning("%d images lie in %s itself, in no sub-folder: no figure counts them", loose, folder)
        true, told, sure, scores = _columns([row for row in rows if row[0]])
        known = np.isin(true, classes)
        for other in sorted({*true[~known].tolist()}):
            if alike := [name for name in classes if name.casefold() == other.casefold()]:
                names = printable(other), printable(alike[0])
                log.warning("sub-folder '%s' is not the class '%s': its images count as images of no class", *names)
        if not known.any():
            found = named(sorted(set(true.tolist()))) or "none"
            msg = f"no image under {folder} is of a class that the model knows: sub-folders {found}; "
            raise DataError(f"{msg}classes {named(classes)}")
        rejected = None if summary.threshold is None else scores > summary.threshold
        figures = {
            **_compare_classes(true[known], told[known], sure[known], classes),
            "accuracy_accepted": share_of(true == told, known & ~rejected) if rejected is not None else None,
            "rejection_auroc": image_auroc(scores, ~known).value,
            "rejected_known": share_of(rejected, known),
            "rejected_other": share_of(rejected, ~known),
            "false_alarms": summary.false_alarms,
            "n_known": int(known.sum()),
            "n_other": int((~known).sum()),
            "others": sorted(set(true[~known].tolist())),
            "n_images": len(true),
            "n_trained_on": known_before,
            "n_failed": summary.failed,
            "images_per_second": summary.images_per_second,
        }
    warn_of_known(known_before, len(rows))
    return figures


def _compare_classes(
    true: NDArray[Any], told: NDArray[Any], sure: NDArray[Any], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Measure the predicted classes, over images of known ones."""
    number = {name: position for position, name in enumerate(classes)}
    pairs = [number[one] * len(classes) + number[other] for one, other in zip(true, told, strict=True)]
    counts = np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
    there = np.flatnonzero(counts.sum(axis=1))
    confusion = {classes[row]: dict(zip(classes, counts[row].tolist(), strict=True)) for row in there}
    right = true == told
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((counts.diagonal()[there] / counts.sum(axis=1)[there]).mean()),
        "ece": calibration_error(count_by_confidence(sure, right)),
        "confusion": confusion,
    }


def _kept(row: Row) -> tuple[str, str, float, float]:
    """Sub-folder, label, its probability and score of a row: it may be one of millions."""
    return group_of(row["path"]), row["label"] or "", row["label_probability"] or 0.0, row["score"] or 0.0


def _columns(rows: list[tuple[str, str, float, float]]) -> list[NDArray[Any]]:
    return [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.array([])] * 4
