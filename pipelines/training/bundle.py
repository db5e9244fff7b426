"""From a trained network to the folder that gets registered: ONNX file, calibration, gallery, decoder, card."""

from __future__ import annotations

import json
import logging
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from safetensors.numpy import save_file

from pipelines.base.software import software_version
from pipelines.base.subsample import evenly_spaced
from pipelines.data.extractor import find_extractor
from pipelines.data.plan import Plan
from pipelines.data.splits import SplitName
from pipelines.data.training_images import TrainingData
from pipelines.errors import ModelError
from pipelines.images import Failed, ImageFile
from pipelines.images.drawing import to_8_bits
from pipelines.jobfile.job import Job, to_toml
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import (
    DECODER_FILE,
    GALLERY_FILE,
    JOB_FILE,
    MODEL_FILE,
    Metadata,
    ModelFile,
    sha256_of,
)
from pipelines.models.providers import SCORE_TOLERANCE, SMALLEST_SCORE
from pipelines.models.session import Session, keyed_noise
from pipelines.training.network import describe_licence
from pipelines.training.options import find_likelihood_name
from vaecore.experts import EXPERTS, ClosedFormLinearVAE
from vaecore.graphs.export import export_decoder, export_scoring
from vaecore.graphs.scoring import DecoderGraph, ScoringGraph
from vaecore.representations import Features
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import all_tasks

log = logging.getLogger(__name__)

PARITY = 1e-5  # largest relative difference of a score between torch and ONNX Runtime, fp32
PARITY_MAP = 1e-3  # largest difference at a place, relative to the map's highest value
PARITY_FEATURES = SCORE_TOLERANCE  # the same through a backbone of fifty layers, or of places in standard deviations
VAE_ASPECT = "against the pattern of the whole image"
GALLERY_IMAGES = 256
GALLERY_WINDOWS, FEWEST_IN_GALLERY = 1_000, 16  # windows of them together, of a model of windows; images all the same
GALLERY_SIDE = 96  # pixels, the longest side of a thumbnail
OF_BOUND, MEAN_OF_WINDOWS = ("elbo", "rate", "distortion"), "nats, the mean over an image's windows"


def common_fields(
    job: Job, image_format: ImageFormat, data_digest: str, split: Mapping[SplitName, Sequence[int]]
) -> dict[str, Any]:
    """What the metadata of every kind of model says of its job and its images."""
    return {
        "name": job.name,
        "task": job.task,
        "summary": all_tasks()[job.task].summary,
        "channels": image_format.channels,
        "bit_depth": image_format.bit_depth,
        "adversarial": job.train.adversarial,
        "git_commit": git_commit(job.path.parent),
        "data_digest": data_digest,
        "images": {name: len(indices) for name, indices in split.items() if name != "scale"},  # it is part of select
        "kintsugi": software_version(),
    }


def describe(job: Job, plan: Plan, data: TrainingData, graph: ScoringGraph, corruption: str) -> Metadata:
    """What goes into the file as metadata; `corruption` is of what the encoder saw in training."""
    return Metadata(
        **common_fields(job, plan.image_format, data.digest, data.split),
        value_range=(0, plan.image_format.maximum),
        size=plan.size,
        median_size=plan.median_size,
        window_overlap=plan.overlap,
        format=1 if plan.overlap is None else 2,
        size_multiple=1,  # any size: the graph resizes
        halo=None,
        target=plan.target_name,
        backbone=job.model.backbone if plan.target.features else None,
        strides=plan.strides,
        layers=plan.layers,
        stages=plan.stages,
        smooth=getattr(graph.representation, "smooth", None),
        experts=tuple(experts_of(graph).items()),
        aspects={name: EXPERTS[name].aspect if name in EXPERTS else VAE_ASPECT for name in experts_of(graph)},
        standardised=graph.representation.standardises,
        recentred=graph.representation.recentres if isinstance(graph.representation, Features) else None,
        corruption=corruption,
        places=grid_of(graph),
        composite=len(plan.strides) > 1,
        dims=graph.representation.dims,
        likelihood=find_likelihood_name(job, plan),
        latent_shape=graph.network.latent_shape,
        samples=job.model.samples,
        classes=data.classes,
        score=describe_score(graph) + ("" if plan.overlap is None else "; of an image, that of its highest window"),
        outputs=graph.outputs if plan.overlap is None else graph.outputs | dict.fromkeys(OF_BOUND, MEAN_OF_WINDOWS),
        licence=describe_licence(job) if plan.target.features else None,
    )


def grid_of(graph: ScoringGraph) -> tuple[int, int]:
    """Rows and columns of the grid that the anomaly map is interpolated from."""
    if graph.combination is not None:
        return graph.combination.size
    representation = graph.representation
    rows, columns = representation.sum_by_place(torch.zeros(1, representation.channels, *representation.size)).shape[1:]
    return rows, columns


def experts_of(graph: ScoringGraph) -> dict[str, float]:
    """Weight of each expert in the score, the VAE's first; empty where the score is of the bound alone."""
    if graph.combination is None:
        return {}
    vae = "linear_vae" if isinstance(graph.model, ClosedFormLinearVAE) else "vae"
    names = [vae, *(name for expert in graph.experts for name, kind in EXPERTS.items() if type(expert) is kind)]
    return dict(zip(names, graph.combination.weights.tolist(), strict=True))


def describe_score(graph: ScoringGraph) -> str:
    """How the score is made of the bound, in words."""
    if graph.combination is not None:
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in experts_of(graph).items())
        return (
            "distortion by place, standardised on good images at each place, mean over the highest places, the larger "
            f"of a small and a large area; weights: {weights}"
        )
    return {
        "complexity": "distance of -ELBO and complexity from good images', in standard deviations",
        "iwae": "minus the importance-weighted bound, per dimension of y",
        "ratio": "ELBO less the bound from the upper latents, per dimension of y",
    }.get(graph.kind, "-ELBO per dimension of y")


def write_model(folder: Path, graph: ScoringGraph, metadata: Metadata) -> ModelFile:
    """Export the scoring graph, and the decoder where it draws images, into the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    document = metadata.model_dump(mode="json")
    features = graph.representation
    extractor = find_extractor(features, graph.image_format) if isinstance(features, Features) else None
    export_scoring(graph, folder / MODEL_FILE, document, extractor)
    if graph.representation.drawable:
        export_decoder(DecoderGraph(graph.model, graph.image_format), folder / DECODER_FILE, document)
    path = folder / MODEL_FILE
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))


def check_parity(file: ModelFile, graph: ScoringGraph, files: Sequence[ImageFile]) -> float:
    """Load the exported file back and compare it with torch on real files, at their own size and at two others.

    Returns:
        The largest difference of a score, relative to it.

    Raises:
        ModelError: They differ by more than 1e-5 (1e-4 with a backbone, or where scores are of places), or a restored
            image by more than one level.
    """
    session = Session(file, device="cpu")
    shape = (session.metadata.samples, *session.metadata.latent_shape)
    drawable = graph.representation.drawable
    wanted = ("score", "anomaly_map", *(("restored",) if drawable else ()))
    # A score crosses zero, where "relative" means nothing: there, it is relative to what cancelled in a score in nats
    # per dimension, which for pixels is as large as the logarithm of their levels, and else to a standard deviation.
    if graph.combination is not None:
        limit, scale = PARITY_FEATURES, 1.0
    elif drawable:
        limit, scale = PARITY, math.log(session.metadata.value_range[1])
    else:
        limit, scale = PARITY_FEATURES, SMALLEST_SCORE
    worst = 0.0
    for number, image in enumerate(decode_for(files[:3], session.metadata)):
        if isinstance(image, Failed):
            continue
        step = 1 + number % 3  # the whole image, then every second and every third pixel: three sizes
        pixels = np.ascontiguousarray(image.pixels[None, ::step, ::step])
        noise = torch.from_numpy(keyed_noise(image.sha256, shape)[None])
        with torch.no_grad():
            expected = graph(torch.from_numpy(pixels), noise)
        found = session.run_graph(pixels, [image.sha256], wanted)
        score = float(expected["score"][0])
        difference = abs(float(found["score"][0]) - score) / max(abs(score), scale)
        levels = 0
        if drawable:
            levels = np.abs(found["restored"].astype(np.int64) - expected["restored"].numpy().astype(np.int64)).max()
        expected_map = expected["anomaly_map"].numpy()
        apart = float(np.abs(found["anomaly_map"] - expected_map).max() / max(1.0, np.abs(expected_map).max()))
        if not (difference <= limit and apart <= PARITY_MAP) or levels > 1:  # not-a-number is no agreement either
            msg = (
                f"the exported model does not agree with torch: score {found['score'][0]:.7g} against {score:.7g}"
                f" (limit {limit:g} relative), map {apart:.2g} of its highest value apart (limit {PARITY_MAP:g}),"
                f" restored image {levels} levels apart (limit 1); it was not registered. This happens if "
                "the training images are nearly identical: give images that vary as good ones do"
            )
            raise ModelError(msg)
        worst = max(worst, difference)
    return worst


def write_gallery(
    session: Session, files: Sequence[ImageFile], embeddings: Mapping[str, NDArray[np.float32]] | None = None
) -> None:
    """Keep embeddings and thumbnails of good images, so that a report can show what normal looks like.

    Args:
        session: The exported file, open.
        files: Of the training set, in the order of their names; those that are kept are spread evenly over it.
        embeddings: By path, of images whose features training has made already; the others go through the file.
    """
    found, thumbnails, sizes, names = [], [], [], []
    most = session.metadata.images_within(GALLERY_WINDOWS, least=FEWEST_IN_GALLERY)
    for image in decode_for(evenly_spaced(files, min(GALLERY_IMAGES, most)), session.metadata):
        if isinstance(image, Failed):
            continue
        embedding = (embeddings or {}).get(image.file.relative)
        if embedding is None:
            embedding = session.run(image.pixels[None], [image.sha256], ("embedding",))["embedding"][0]
        found.append(embedding)
        picture = PillowImage.fromarray(np.broadcast_to(to_8_bits(image.pixels), (*image.pixels.shape[:2], 3)).copy())
        picture.thumbnail((GALLERY_SIDE, GALLERY_SIDE), PillowImage.Resampling.LANCZOS)
        square = np.zeros((GALLERY_SIDE, GALLERY_SIDE, 3), np.uint8)
        square[: picture.height, : picture.width] = np.asarray(picture)
        thumbnails.append(square)
        sizes.append((picture.height, picture.width))
        names.append(image.file.relative)
    tensors = {
        "embedding": np.stack(found),
        "thumbnail": np.stack(thumbnails),
        "thumbnail_size": np.array(sizes, dtype=np.int32),
    }
    facts = {"names": json.dumps(names), "model_sha256": session.model.sha256}
    save_file(tensors, session.model.folder / GALLERY_FILE, metadata=facts)


def write_job(folder: Path, job: Job) -> None:
    """Write the job as it was carried out into the bundle: overrides applied, paths absolute, defaults filled in."""
    document = job.model_dump(mode="json", exclude_none=True)
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    lines = [f"{key} = {to_toml(value)}" for key, value in document.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {to_toml(value)}" for key, value in table.items())]
    (folder / JOB_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def git_commit(folder: Path) -> str | None:
    """The commit of the repository that the job file lies in, for the record; None where there is none."""
    try:
        found = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
