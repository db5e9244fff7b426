"""Measure a model of any kind on a folder: each kind has a module in `pipelines.evaluation`.

model and folder -> measures for its kind -> figures -> JSON
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.anomaly.verdicts import check_rule
from pipelines.batch.output_folder import check_file, check_output
from pipelines.errors import DataError, FolderError
from pipelines.evaluation.anomalies import evaluate_scores
from pipelines.evaluation.defect_masks import GOOD
from pipelines.evaluation.descriptions import write_figures
from pipelines.images import expect_images
from pipelines.models.model_file import (
    ColorizationMetadata,
    CommonMetadata,
    Metadata,
    ModelFile,
    RestorationMetadata,
    SegmentationMetadata,
)
from pipelines.models.session import DOES, Session, kind_of
from pipelines.registry.resolve import find_model

# Modules that need torch or scikit-learn are imported where they are called: scores are measured without.


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
    """Measure a model of any kind on a folder of test images.

    Args:
        folder: Test images. For an anomaly model, the MVTec layout; for a model with classes, a sub-folder for each
            class; for a restoration model, clean images; for a model that labels pixels, `image/` and `label/`; for a
            model that colours, colour images.
        model: Reference to a model.
        json_path: File for the figures.
        levels: Strengths of damage (restoration models).
        classical: Names of methods without networks to measure too (restoration models).
        out: Output folder for rows, maps and report (anomaly models, like all arguments below).
        false_alarms: Share of good images that may be flagged, between 0 and 1.
        groups: Judge each sub-folder by its own calibration images.
        regret: Also rank the images by likelihood regret.
        bound: Only measure the importance-weighted bound, with this number of samples, on all images of the folder.
        probe: Only measure a linear classifier on the latents, with this number of labelled images. The sub-folders are
            the classes.
        fresh: Discard the regrets of earlier runs. All other figures are always measured again.

    Returns:
        The figures by name, as in the JSON file.

    Raises:
        KintsugiError: The folder or an option does not suit the model; the message says what does.
    """
    folder = Path(folder)
    is_labelled = (folder / "test" / GOOD).is_dir()
    of_scores: dict[str, object] = {"out": out, "false_alarms": false_alarms, "groups": groups, "regret": regret}
    of_mending: dict[str, object] = {"levels": levels, "classical": classical}
    # What is wrong with the call is told before a model is looked for, and what is missing before hours of work.
    check_rule(false_alarms)
    if out is not None:
        check_output(out, folder / "test" if is_labelled else folder)
    if json_path is not None:
        check_file(json_path)
    if not folder.is_dir() or bound is not None or probe is not None:
        expect_images(folder)  # the error says what is wrong with it
    file = find_model(model)  # once: between two looks, another version may become champion
    kind = kind_of(file)
    if bound is not None or probe is not None:
        _refuse({"bound": bound, "probe": probe} if kind is not Metadata else {}, DOES[kind])
        _refuse(of_scores | of_mending, "is asked for its linear probe" if probe else "is asked for its bound")
        figures = _evaluate_latents(folder, file, bound, probe)
    elif is_labelled and not any(of_mending.values()):
        return evaluate_scores(
            folder, file, json_path=json_path, out=out, false_alarms=false_alarms, groups=groups, regret=regret,
            fresh=fresh,
        )  # fmt: skip
    elif kind is Metadata:
        _refuse(of_mending, DOES[kind])
        classes = () if (folder / "test").is_dir() else Session(file, device="cpu").metadata.classes
        if not classes:
            msg = (
                f"{folder} does not have the layout for evaluation: there is no {folder / 'test' / GOOD} (see "
                "docs/guides/anomalies.md; --bound 500 takes any folder)"
            )
            raise FolderError(msg)
        _refuse({"groups": groups, "regret": regret}, "tells classes, on a folder of them")
        from pipelines.evaluation.classes import evaluate_classes

        figures = evaluate_classes(folder, file, classes, out=out, false_alarms=false_alarms)
    else:
        expect_images(folder)
        _refuse(of_scores | ({} if kind is RestorationMetadata else of_mending), DOES[kind])
        figures = _evaluate_images(folder, file, kind, levels, classical)
    if json_path is not None:
        write_figures(json_path, figures)
    return figures


def _evaluate_latents(folder: Path, file: ModelFile, bound: int | None, probe: int | None) -> dict[str, Any]:
    """Measure the bound, or what a linear classifier learns from the latents."""
    if bound is not None and probe is not None:
        raise FolderError("--bound and --probe measure different things: give one of them")
    if (folder / "ground_truth").is_dir():  # masks are no images
        inside = folder / "test" if probe is not None else folder / "test" / GOOD
        raise FolderError(f"{folder} holds masks, in ground_truth: give {inside}")
    if probe is not None:
        from pipelines.evaluation.probe import evaluate_probe

        return evaluate_probe(folder, file, probe)
    from pipelines.evaluation.bound import evaluate_bound

    return evaluate_bound(folder, file, bound or 1)


def _evaluate_images(
    folder: Path, file: ModelFile, kind: type[CommonMetadata], levels: Sequence[str] | None, classical: Sequence[str]
) -> dict[str, Any]:
    """Measure what a model makes of images."""
    from pipelines.evaluation.colorizer import evaluate_colorizer
    from pipelines.evaluation.restorer import evaluate_restorer
    from pipelines.evaluation.segmenter import evaluate_segmenter

    if kind is SegmentationMetadata:
        return evaluate_segmenter(folder, file)
    if kind is ColorizationMetadata:
        return evaluate_colorizer(folder, file)
    return evaluate_restorer(folder, file, levels=levels, classical=classical)


def _refuse(options: Mapping[str, object], does: str) -> None:
    if name := next((name for name, value in options.items() if value), None):
        raise DataError(f"--{name.replace('_', '-')} has no meaning for a model that {does}")
