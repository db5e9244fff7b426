"""Figures of merit of any model, and of a scoring one on a labelled folder in the MVTec layout.

FOLDER/test/good/*            images without defect
FOLDER/test/<defect>/*        images with that defect
FOLDER/ground_truth/<defect>/NAME.png, NAME_mask.png or NAME_gt.png   masks, of any suffix (optional)
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from pipelines.anomaly.verdicts import Verdicts, check_rule
from pipelines.base.files import keep_figures
from pipelines.base.safe_text import plural
from pipelines.batch.output_folder import check_file, check_output
from pipelines.batch.schema import Row
from pipelines.errors import DataError, FolderError
from pipelines.evaluation.defect_masks import GOOD, Masks
from pipelines.images import OUTPUT_MARKER, expect_images, list_images
from pipelines.models.model_file import ColorizationMetadata, Metadata, RestorationMetadata, SegmentationMetadata
from pipelines.models.session import DOES, Session, kind_of
from pipelines.registry.resolve import find_model
from pipelines.report import write_report
from pipelines.score import score_folder

log = logging.getLogger(__name__)
QUANTITIES = {"elbo": -1, "distortion": 1, "rate": 1}
"""What else an image can be ranked by, and the sign with which higher is more abnormal."""


def evaluate_model(
    folder: Path | str,
    model: str | Path,
    *,
    json_path: Path | None = None,
    levels: Sequence[str] | None = None,
    classical: Sequence[str] = (),
    out: Path | None = None,
    false_alarms: float | None = None,
    groups: bool = False,
    regret: bool = False,
    bound: int | None = None,
    probe: int | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Measure a model on a folder of what it is for.

    Args:
        folder: In the MVTec layout for a model that scores; with a sub-folder for each class for one that tells these
            (`evaluate_classes`); clean images for one that mends (`evaluate_restorer`);
            `image/` and `label/` for one that labels pixels (`evaluate_segmenter`); colour images for one that colours
            (`evaluate_colorizer`).
        model: Reference to a model.
        json_path: Where to write the figures.
        levels: Of models that mend.
        classical: Of models that mend.
        out: Of models that score, as all below; see `evaluate_scores`.
        false_alarms: The promised rate.
        groups: Judge by sub-folder.
        regret: Also rank by likelihood regret.
        bound: Samples of the importance-weighted bound, which is measured instead, on all images of the folder
            (`evaluate_bound`).
        probe: Labelled images of a linear classifier on the latents, which is measured instead, on a folder whose
            sub-folders are classes (`evaluate_probe`).
        fresh: Forget the regrets of earlier runs; all else is measured anew each time.

    Returns:
        The figures of the evaluate contract.

    Raises:
        KintsugiError: The folder or an option is not for such a model; the message says what is.
    """
    folder = Path(folder)
    if json_path is not None:
        check_file(json_path)
    of_scores: dict[str, object] = {"out": out, "false_alarms": false_alarms, "groups": groups, "regret": regret}
    of_mending: dict[str, object] = {"levels": levels, "classical": classical}
    if bound is not None or probe is not None:
        expect_images(folder)
        file = find_model(model)
        if (does := kind_of(file)) is not Metadata:
            _refuse({"bound": bound, "probe": probe}, DOES[does])
        if bound is not None and probe is not None:
            raise FolderError("--bound and --probe measure different things: give one of them")
        if (folder / "ground_truth").is_dir():  # masks are no images
            inside = folder / "test" if probe is not None else folder / "test" / GOOD
            raise FolderError(f"{folder} holds masks, in ground_truth: give {inside}")
        for options in (of_scores, of_mending):
            _refuse(options, "is asked for its linear probe" if probe else "is asked for its bound")
        if probe is not None:
            from pipelines.evaluation.probe import evaluate_probe

            return evaluate_probe(folder, file, probe, json_path=json_path)
        from pipelines.evaluation.bound import evaluate_bound

        return evaluate_bound(folder, file, bound or 1, json_path=json_path)
    if not (folder / "test" / GOOD).is_dir() or any(of_mending.values()):
        if not folder.is_dir():
            expect_images(folder)  # says what is wrong with it
        file = find_model(model)
        does = kind_of(file)
        if does is not Metadata:
            expect_images(folder)
            from pipelines.evaluation.colorizer import evaluate_colorizer
            from pipelines.evaluation.restorer import evaluate_restorer
            from pipelines.evaluation.segmenter import evaluate_segmenter

            _refuse(of_scores | ({} if does is RestorationMetadata else of_mending), DOES[does])
            if does is SegmentationMetadata:
                return evaluate_segmenter(folder, file, json_path=json_path)
            if does is ColorizationMetadata:
                return evaluate_colorizer(folder, file, json_path=json_path)
            return evaluate_restorer(folder, file, levels=levels, classical=classical, json_path=json_path)
        _refuse(of_mending, DOES[does])
        if not (folder / "test").is_dir() and (classes := Session(file, device="cpu").metadata.classes):
            _refuse({"groups": groups, "regret": regret}, "tells classes, on a folder of them")
            from pipelines.evaluation.classes import evaluate_classes

            return evaluate_classes(folder, file, classes, json_path=json_path, out=out, false_alarms=false_alarms)
    return evaluate_scores(
        folder, model, json_path=json_path, out=out, false_alarms=false_alarms, groups=groups, regret=regret,
        fresh=fresh,
    )  # fmt: skip


def _refuse(options: Mapping[str, object], does: str) -> None:
    if name := next((name for name, value in options.items() if value), None):
        raise DataError(f"--{name.replace('_', '-')} has no meaning for a model that {does}")


def evaluate_scores(
    folder: Path | str,
    model: str | Path,
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
        model: Reference to a scoring model.
        json_path: Where to write the figures.
        out: Output folder for rows, maps and a report with the figures in it; none is kept when left out.
        false_alarms: The promised rate; default: the model's.
        groups: Judge the sub-folders below `test/<label>` by their own calibration images, where there are enough.
        regret: Also rank the images by likelihood regret: slow, and needs the training extra. With `out`, each is kept
            when it is found, and a run that was stopped goes on from there.
        fresh: Forget the regrets of earlier runs.

    Returns:
        The figures of the evaluate contract.

    Raises:
        FolderError: The folder is not in that layout.
        ModelError: Regret, but the model's weights are not beside it.
    """
    folder = Path(folder)
    test = folder / "test"
    if not (test / GOOD).is_dir():
        msg = (
            f"{folder} is not laid out for evaluation: there is no {test / GOOD} (README.md shows the layout; "
            "--bound 500 takes any folder)"
        )
        raise FolderError(msg)
    # What is wrong with the call is told before a model is looked for, and what is missing before hours of work.
    check_rule(false_alarms)
    if out is not None:
        check_output(out, test)
    if json_path is not None:
        check_file(json_path)
    file = find_model(model)  # once: between two looks, another version may become champion
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
        defect = _label(row)
        mask = masks.of(row["path"], anomaly_map.shape)
        pixels.add(anomaly_map, mask, defect=None if defect == GOOD else defect)

    with tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary:
        place = out or Path(temporary)
        summary = score_folder(
            test, file, place, false_alarms=false_alarms, groups=groups, group_level=1, fresh=True, observer=observe,
            drift_below=(GOOD,),
        )  # fmt: skip
        verdicts = Verdicts.of(file.calibration(), false_alarms, groups=groups, group_level=1)
        result = figures_of(rows, pixels, verdicts)
        result["quantities"] = {
            name: _quantity(rows, [sign * row[name] for row in rows]) for name, sign in QUANTITIES.items()
        }
        if tells_places:
            result["masks"] = masks.report()
        result |= {"images_per_second": summary.images_per_second, "n_failed": summary.failed}
        _keep(result, json_path, out)
        if graph is not None:
            from pipelines.evaluation.regret import REGRET_FILE, regret_of

            if fresh and out is not None:
                (out / OUTPUT_MARKER / REGRET_FILE).unlink(missing_ok=True)
            paths = {image.relative: image for image in list_images(test).files}
            regrets = regret_of(
                graph, {row["sha256"]: paths[row["path"]] for row in rows if row["path"] in paths},
                kept=out and out / OUTPUT_MARKER / REGRET_FILE, model_sha256=file.sha256,
            )  # fmt: skip
            ranked = [row for row in rows if row["sha256"] in regrets]
            result["quantities"]["regret"] = _quantity(ranked, [regrets[row["sha256"]] for row in ranked])
            _keep(result, json_path, out)
    return result


def _keep(result: dict[str, Any], json_path: Path | None, out: Path | None) -> None:
    if out is not None:
        keep_figures(out / "evaluation.json", result, describe_scores)
        write_report(out)
    keep_figures(json_path, result, describe_scores)


def describe_evaluation(figures: dict[str, Any]) -> Iterator[str]:
    """The figures of any model as lines for a terminal."""
    if "iwae" in figures:
        from pipelines.evaluation.bound import describe_bound

        return describe_bound(figures)
    if "probe" in figures:
        from pipelines.evaluation.probe import describe_probe

        return describe_probe(figures)
    if "confusion" in figures:
        from pipelines.evaluation.classes import describe_classes

        return describe_classes(figures)
    if "n_grey" in figures:
        from pipelines.evaluation.colorizer import describe_colorization

        return describe_colorization(figures)
    if "levels" in figures:
        from pipelines.evaluation.restorer import describe_restoration

        return describe_restoration(figures)
    if "dice" in figures:
        from pipelines.evaluation.segmenter import describe_segmentation

        return describe_segmentation(figures)
    return describe_scores(figures)


def describe_scores(figures: dict[str, Any]) -> Iterator[str]:
    """The figures of `evaluate` as lines for a terminal."""

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    def by_masks(value: float | None, used: int | None, images: int) -> str:
        partly = value is not None and used is not None and used < images
        return f" ({plural(used or 0, 'mask')} of {plural(images, 'image')})" if partly else ""

    interval = figures["image_auroc_interval"]
    spread = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    images = f"{figures['n_good']} good and {figures['n_bad']} defective images"
    yield f"image AUROC {text(figures['image_auroc'])}{spread} on {images}"
    masks = figures.get("masks", {}).get("used")
    for key in ("image_ap", "pixel_auroc", "aupro", "fpr_at_threshold", "tpr_at_threshold", "images_per_second"):
        partly = by_masks(figures[key], masks, figures["n_bad"]) if key in ("pixel_auroc", "aupro") else ""
        yield f"{key:18} {text(figures[key])}{partly}"
    others = ", ".join(f"{name} {text(block['image_auroc'])}" for name, block in figures["quantities"].items())
    yield f"image AUROC of other quantities of the bound: {others}"
    for name, block in figures["defects"].items():
        partly = by_masks(block["aupro"], block.get("n_masks"), block["n"])
        yield f"  {name:16} n {block['n']:<4} AUROC {text(block['image_auroc'])}  AUPRO {text(block['aupro'])}{partly}"


def figures_of(rows: list[Row], pixels: PixelFigures, verdicts: Verdicts) -> dict[str, Any]:
    """The figures of the evaluate contract, from scored rows (`path` begins with the label) and their maps."""
    scores = np.array([row["score"] for row in rows])
    labels = np.array([_label(row) for row in rows])
    bad = labels != GOOD
    n_good, n_bad = int((~bad).sum()), int(bad.sum())
    flagged = None
    if verdicts.threshold is not None:
        flagged = np.array([verdicts.is_flagged(row["path"], row["score"]) for row in rows], dtype=bool)
    overall, by_defect = pixels.results()
    interval = None
    # The law of the rate is known for one threshold, not for a mixture, nor for images that nothing is promised for.
    one_rule = verdicts.groups is None or not verdicts.groups.own
    one_rule = one_rule and all(verdicts.has_promise(row["path"]) for row in rows if _label(row) == GOOD)
    if one_rule and verdicts.calibration is not None and verdicts.false_alarms is not None and n_good:
        interval = list(verdicts.calibration.interval(verdicts.false_alarms, n_good))
    return {
        **_ranking(scores, bad),
        **_pixel(overall),
        "fpr_at_threshold": share_of(flagged, ~bad),
        "fpr_interval": interval,
        "tpr_at_threshold": share_of(flagged, bad),
        "n_good": n_good,
        "n_bad": n_bad,
        "threshold": verdicts.threshold,
        "false_alarms": verdicts.false_alarms,
        "roc": roc_points(scores, bad) if n_good and n_bad else [],
        "defects": {
            defect: {
                "n": int((labels == defect).sum()),
                "n_masks": pixels.masked[defect],
                **_ranking(scores[among], bad[among]),
                **_pixel(by_defect.get(defect)),
                "tpr_at_threshold": share_of(flagged, labels == defect),
            }
            for defect, among in _against_good(labels)
        },
    }


def _quantity(rows: list[Row], values: Sequence[float]) -> dict[str, Any]:
    """How well one number of each image ranks them, in all and for each defect."""
    labels, numbers = np.array([_label(row) for row in rows]), np.array(values)
    bad = labels != GOOD
    return {
        "image_auroc": image_auroc(numbers, bad).value,
        "defects": {defect: image_auroc(numbers[among], bad[among]).value for defect, among in _against_good(labels)},
    }


def _against_good(labels: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each kind of defect, and which images are of it or good."""
    good = labels == GOOD
    for defect in np.unique(labels[~good]):
        yield str(defect), (labels == defect) | good


def _ranking(scores: NDArray[Any], bad: NDArray[Any]) -> dict[str, Any]:
    auroc = image_auroc(scores, bad)
    return {
        "image_auroc": auroc.value,
        "image_auroc_interval": list(auroc.interval) if auroc.interval else None,
        "image_ap": average_precision(scores, bad),
    }


def _pixel(result: PixelResult | None) -> dict[str, Any]:
    return {"pixel_auroc": result and result.pixel_auroc, "aupro": result and result.aupro}


def _label(row: Row) -> str:
    return str(row["path"]).split("/", 1)[0]
