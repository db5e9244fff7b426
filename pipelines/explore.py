"""What a model believes, on one page for people who know their images: samples, latents, where images lie.

model and weights -> posteriors of the images -> statistics and pictures -> explore.html, explore.json
"""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.anomaly.calibration import Calibration
from pipelines.base.files import write_json
from pipelines.base.percentages import percent
from pipelines.base.software import software_version
from pipelines.batch.output_folder import check_own, check_writable, warn_replaced
from pipelines.errors import ModelError
from pipelines.jobfile.job import load_job
from pipelines.latents import sections
from pipelines.latents.posteriors import MOST_IMAGES, Codes, encode_folder
from pipelines.models.model_file import JOB_FILE, Metadata, ModelFile
from pipelines.models.session import DOES, Session, kind_of
from pipelines.registry.resolve import find_model
from pipelines.report.explore_page import write_explore_page
from pipelines.report.sentences import warn_of_scores
from pipelines.training.network import prior_words
from pipelines.training.weights import load_network
from vaecore.graphs.scoring import ScoringGraph
from vaecore.networks import ClassPrior

log = logging.getLogger(__name__)
EXPLORE_JSON = "explore.json"
WORSE_THAN = 0.99  # share of the calibration images that fit better than an image which is unlike them
UNRELATED = 0.5  # share of such images above which the folder is not of what the model knows


@dataclass(frozen=True, slots=True)
class ExploreSummary:
    """What a finished job has to say."""

    page: Path
    files: int  # images that were asked for
    failed: int


@torch.inference_mode()
def explore_model(model: str | Path, out: Path | str, *, images: Path | str | None = None) -> ExploreSummary:
    """Write a page, and its numbers, of what a model believes. Needs torch, and the weights beside the model.

    Args:
        model: Reference to a model that scores.
        out: A folder; `explore.html` and `explore.json` in it are replaced.
        images: Images to show in its light, of at most 2,000; the first sub-folder of a path is the image's label.

    Returns:
        Where the page is, and counts of the images.

    Raises:
        ModelError: The model mends images, or has no weights beside it.
        CalibrationError: What is beside it as calibration.json is damaged, or of another model.
        FolderError: `out` is a file or holds something else, or there are no images.
        DataError: No image can be read.
    """
    out = Path(out)
    file = find_model(model)
    if (kind := kind_of(file)) is not Metadata:
        raise ModelError(f"{file.ref} {DOES[kind]}: only anomaly models can be explored; train one on good images")
    check_own(out, EXPLORE_JSON)
    check_writable(out)
    graph = load_network(file)
    known = file.calibration()
    codes = None if images is None else encode_folder(graph, Path(images))
    unlike = None if codes is None or known is None else measure_unlikeness(known, codes)
    if unlike is not None and unlike > UNRELATED:
        log.warning(
            "%s of the images fit %s worse than nearly all of its calibration images: the page shows how it sees "
            "images that are unlike its own", percent(unlike), file.ref,
        )  # fmt: skip
    if images is None and not graph.representation.drawable:
        log.warning("%s is a model of features and cannot draw images: the page is empty without --images", file.ref)
    log.info("drawing the page of %s", file.ref)
    drawable, prior = graph.representation.drawable, sections.has_prior(graph)
    classes = Session(file, device="cpu").metadata.classes if isinstance(graph.model, ClassPrior) else ()
    facts: dict[str, Any] = {
        "model": _describe_model(file, graph),
        "cautions": warn_of_scores({"adversarial": load_job(file.folder / JOB_FILE).train.adversarial}),
        "command": shlex.join(
            ["kintsugi", "explore", file.ref, *([] if images is None else ["--images", str(images)]), "--out", "DIR"]
        ),
        "drawable": drawable,
        "prior": prior,
        "images": None if codes is None else _describe_images(Path(images or ""), codes),
        "unlike": unlike,
        "unrelated": unlike is not None and unlike > UNRELATED,
        "samples": sections.show_samples(graph, classes) if drawable and prior else None,
        "maps": sections.show_maps(graph, codes) if drawable else None,
        "moved": sections.show_traversals(graph, codes) if drawable else None,
        **dict.fromkeys(("points", "between", "use", "together", "judged", "apart")),
    }
    if codes is not None:
        facts |= {
            "points": sections.show_projection(graph, codes),
            "between": sections.show_interpolations(graph, codes) if drawable else None,
            "use": sections.show_use(graph, codes),
            "together": sections.show_correlations(graph, codes),
            "judged": sections.show_extremes(graph, codes),
            "apart": sections.show_divergences(graph, codes),
        }
    warn_replaced(out / EXPLORE_JSON, file)
    write_json(out / EXPLORE_JSON, _list_numbers(file, graph, codes, facts))
    page = write_explore_page(out, facts, [] if codes is None else [each.relative for each in codes.files])
    return ExploreSummary(page, 0 if codes is None else codes.found, 0 if codes is None else len(codes.failed))


def _describe_model(file: ModelFile, graph: ScoringGraph) -> dict[str, Any]:
    channels, height, width = graph.network.latent_shape
    grid = "" if height * width == 1 else f" ({channels} in each of {height} x {width} places)"
    return {
        "ref": file.ref,
        "name": file.name or file.ref,
        "version": file.version,
        "sha256": file.sha256,
        "latents": f"{channels * height * width:,}{grid}",
        "prior": _describe_prior(file, graph),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "kintsugi": software_version(),
    }


def _describe_prior(file: ModelFile, graph: ScoringGraph) -> str:
    classes = graph.model.classes if isinstance(graph.model, ClassPrior) else 0
    return prior_words(load_job(file.folder / JOB_FILE), classes)


def measure_unlikeness(calibration: Calibration, codes: Codes) -> float | None:
    """Return the share of images whose ELBO is below that of nearly all images that the model was calibrated on.

    None where the calibration is of an older version, which has no rates and distortions.
    """
    known = calibration.statistics
    if not {"rate", "distortion"} <= known.keys():
        return None
    usual = -np.add(known["rate"], known["distortion"])
    return float(np.mean(codes.elbo < np.quantile(usual, 1 - WORSE_THAN)))


def _describe_images(folder: Path, codes: Codes) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "found": codes.found,
        "shown": len(codes.files),
        "failed": codes.failed,
        "left_out": codes.left_out.rows,
        "capped": codes.found - len(codes.failed) > len(codes.files),
        "most": MOST_IMAGES,
        "labels": sorted(set(codes.labels)),
    }


def _list_numbers(file: ModelFile, graph: ScoringGraph, codes: Codes | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows, for programs; rates and divergences in nats."""
    numbers: dict[str, Any] = {
        "model": file.ref,
        "sha256": file.sha256,
        "latent_shape": list(graph.network.latent_shape),
        "prior": _describe_prior(file, graph),
        "latents": sections.name_latents(graph),
    }
    if codes is None:
        return numbers
    together, apart = facts["together"], facts["apart"]
    return numbers | {
        "images": {"found": codes.found, "used": len(codes.files), "failed": dict(codes.failed)},
        "left_out": list(codes.left_out.rows),
        "active": facts["use"]["active"],
        "variance_of_mean": codes.variances.ravel().tolist(),
        "rate": codes.kl.ravel().tolist() if facts["prior"] else None,
        "unlike_calibration": facts["unlike"],
        "elbo": {"mean": float(codes.elbo.mean()), "best": float(codes.elbo.max()), "worst": float(codes.elbo.min())},
        "correlation": together and {"latents": together["names"], "matrix": together["matrix"].tolist()},
        "kl_images_to_prior": apart and apart["forward"],
        "kl_prior_to_images": apart and apart["reverse"],
    }
