"""Figures of merit of a model that scores, on a labelled folder in the MVTec layout.

FOLDER/test/good/*            images without defect
FOLDER/test/<defect>/*        images with that defect
FOLDER/ground_truth/<defect>/NAME.png, NAME_mask.png or NAME_gt.png   masks, of any suffix (optional)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.anomaly.figures_of_merit import (
    PixelFigures,
    PixelResult,
    average_precision,
    image_auroc,
    roc_points,
    share_of,
)
from pipelines.anomaly.verdicts import Verdicts
from pipelines.batch.schema import Row
from pipelines.evaluation.defect_masks import GOOD, Masks
from pipelines.evaluation.descriptions import write_figures
from pipelines.images import OUTPUT_MARKER, list_images
from pipelines.models.model_file import ModelFile
from pipelines.models.session import Session
from pipelines.report import write_report
from pipelines.score import score_folder

QUANTITIES = {"elbo": -1, "distortion": 1, "rate": 1}
"""What else an image can be ranked by, and the sign with which higher is more abnormal."""


def evaluate_scores(
    folder: Path,
    file: ModelFile,
    *,
    json_path: Path | None = None,
    out: Path | None = None,
    false_alarms: float | None = None,
    groups: bool = False,
    regret: bool = False,
    fresh: bool = False,
) -> dict[str, Any]:
    """Score a labelled folder and measure how well the scores tell good from bad.

    Args:
        folder: In the MVTec layout.
        file: A model that scores.
        json_path: Where to write the figures: twice with `regret`, which can take hours.
        out: Output folder for rows, maps and a report with the figures in it; none is kept when left out.
        false_alarms: The rate asked; default: the model's.
        groups: Judge the sub-folders below `test/<label>` by their own calibration images, where there are enough.
        regret: Also rank the images by likelihood regret: slow, and needs the training extra. With `out`, each is kept
            when it is found, and a run that was stopped goes on from there.
        fresh: Forget the regrets of earlier runs.

    Returns:
        The figures of the evaluate contract.

    Raises:
        ModelError: Regret, but the model's weights are not beside it.
    """
    test = folder / "test"
    graph = None
    if regret:
        from pipelines.training.weights import load_network  # needs torch, which scoring does without

        graph = load_network(file)
    tells_places = Session(file, device="cpu").metadata.tells_places
    pixels, masks = PixelFigures(), Masks(folder)
    rows: list[Row] = []

    def observe(row: Row, anomaly_map: NDArray[Any]) -> None:
        rows.append(row)
        if not tells_places:
            return
        defect = _label_of(row)
        mask = masks.of(row["path"], anomaly_map.shape)
        pixels.add(anomaly_map, mask, defect=None if defect == GOOD else defect)

    with tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary:
        place = out or Path(temporary)
        summary = score_folder(
            test, file, place, false_alarms=false_alarms, groups=groups, group_level=1, fresh=True, observer=observe,
            drift_below=(GOOD,), against="calibration",
        )  # fmt: skip
        verdicts = Verdicts.of(file.calibration(), false_alarms, groups=groups, group_level=1)
        result = measure_scores(rows, pixels, verdicts)
        result["quantities"] = {
            name: _rank_by(rows, [sign * row[name] for row in rows]) for name, sign in QUANTITIES.items()
        }
        if tells_places:
            result["masks"] = masks.report()
        result |= {"images_per_second": summary.images_per_second, "n_failed": summary.failed}
        _write(result, json_path, out)
        if graph is not None:
            from pipelines.evaluation.regret import REGRET_FILE, measure_regret

            if fresh and out is not None:
                (out / OUTPUT_MARKER / REGRET_FILE).unlink(missing_ok=True)
            paths = {image.relative: image for image in list_images(test).files}
            regrets = measure_regret(
                graph, {row["sha256"]: paths[row["path"]] for row in rows if row["path"] in paths},
                kept=out and out / OUTPUT_MARKER / REGRET_FILE, model_sha256=file.sha256,
            )  # fmt: skip
            ranked = [row for row in rows if row["sha256"] in regrets]
            result["quantities"]["regret"] = _rank_by(ranked, [regrets[row["sha256"]] for row in ranked])
            _write(result, json_path, out)
    return result


def _write(result: dict[str, Any], json_path: Path | None, out: Path | None) -> None:
    if out is not None:
        write_figures(out / "evaluation.json", result)
        write_report(out)
    if json_path is not None:
        write_figures(json_path, result)


def measure_scores(rows: list[Row], pixels: PixelFigures, verdicts: Verdicts) -> dict[str, Any]:
    """Return the figures of the evaluate contract, from scored rows (`path` begins with the label) and their maps."""
    scores = np.array([row["score"] for row in rows])
    labels = np.array([_label_of(row) for row in rows])
    bad = labels != GOOD
    n_good, n_bad = int((~bad).sum()), int(bad.sum())
    flagged = None
    if verdicts.threshold is not None:
        flagged = np.array([verdicts.is_flagged(row["path"], row["score"]) for row in rows], dtype=bool)
    overall, by_defect = pixels.results()
    interval = None
    # The law of the rate is known for one threshold, not for a mixture, nor for images that the rate is not meant for.
    one_rule = verdicts.groups is None or not verdicts.groups.own
    one_rule = one_rule and all(verdicts.is_represented(row["path"]) for row in rows if _label_of(row) == GOOD)
    if one_rule and verdicts.calibration is not None and verdicts.false_alarms is not None and n_good:
        interval = list(verdicts.calibration.interval(verdicts.false_alarms, n_good))
    return {
        **_measure_ranking(scores, bad),
        **_list_pixel_figures(overall),
        "fpr_at_threshold": share_of(flagged, ~bad),
        "fpr_interval": interval,
        "tpr_at_threshold": share_of(flagged, bad),
        "n_good": n_good,
        "n_bad": n_bad,
        "threshold": verdicts.threshold,
        "false_alarms": verdicts.false_alarms,
        "calibration": verdicts.calibration and verdicts.calibration.claim.model_dump(mode="json"),
        "roc": roc_points(scores, bad) if n_good and n_bad else [],
        "defects": {
            defect: {
                "n": int((labels == defect).sum()),
                "n_masks": pixels.masked[defect],
                **_measure_ranking(scores[among], bad[among]),
                **_list_pixel_figures(by_defect.get(defect)),
                "tpr_at_threshold": share_of(flagged, labels == defect),
            }
            for defect, among in _split_defects(labels)
        },
    }


def _rank_by(rows: list[Row], values: Sequence[float]) -> dict[str, Any]:
    """Measure how well one number of each image ranks them, in all and for each defect."""
    labels, numbers = np.array([_label_of(row) for row in rows]), np.array(values)
    bad = labels != GOOD
    return {
        "image_auroc": image_auroc(numbers, bad).value,
        "defects": {defect: image_auroc(numbers[among], bad[among]).value for defect, among in _split_defects(labels)},
    }


def _split_defects(labels: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Return each kind of defect, and which images are of it or good."""
    good = labels == GOOD
    for defect in np.unique(labels[~good]):
        yield str(defect), (labels == defect) | good


def _measure_ranking(scores: NDArray[Any], bad: NDArray[Any]) -> dict[str, Any]:
    auroc = image_auroc(scores, bad)
    return {
        "image_auroc": auroc.value,
        "image_auroc_interval": list(auroc.interval) if auroc.interval else None,
        "image_ap": average_precision(scores, bad),
    }


def _list_pixel_figures(result: PixelResult | None) -> dict[str, Any]:
    return {"pixel_auroc": result and result.pixel_auroc, "aupro": result and result.aupro}


def _label_of(row: Row) -> str:
    return str(row["path"]).split("/", 1)[0]
