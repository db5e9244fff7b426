"""The training of models that label pixels: a folder of images and one of their labels become a registered model.

survey -> read with labels -> no test images? -> split -> fit -> temperature -> export -> compare with torch -> register
-> promote
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch

from pipelines.build import training_device
from pipelines.bundle import git_commit, write_job
from pipelines.card import write_segmentation_card
from pipelines.data import write_split
from pipelines.error_bars import measure_temperature
from pipelines.errors import JobError, ModelError
from pipelines.fit_crops import CropRecipe
from pipelines.fit_segmenter import FitSegmenter
from pipelines.job import Job
from pipelines.label import classes_of
from pipelines.labels import LabelFolder
from pipelines.loop import run
from pipelines.modelfile import MODEL_FILE, SPLIT_FILE, ModelFile, SegmentationMetadata, sha256_of
from pipelines.plan import survey
from pipelines.quality import compare_labels
from pipelines.registry import Registry
from pipelines.session import SegmentingSession
from pipelines.settings import settings
from pipelines.tracking import TrackedRun
from pipelines.train_crops import (
    OPTIONS,
    PARITY,
    Figure,
    choose_recipe,
    common_problems,
    data_digest,
    decide,
    read_images,
    same_champion,
    steps_of,
    work_key,
)
from pipelines.trained import TrainedModel, flatten, register, work_folder
from vaecore.export import export_segmentation
from vaecore.networks import SIZES, ConditionalVAE
from vaecore.segmentation import OUTPUTS, SegmentationGraph
from vaecore.tasks import segmentations

log = logging.getLogger(__name__)
OWN_OPTIONS = OPTIONS | {"data.labels", "model.classes"}


def train_segmenter(job: Job) -> TrainedModel:
    """Train, export, register and, if the job's rule says so, promote one model that labels pixels.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    start, task = time.perf_counter(), segmentations()[job.task]
    if problems := list(_problems(job)):
        raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
    assert job.data.labels is not None  # noqa: S101 - it was one of the problems
    classes = job.model.classes or ("background", "object")
    labels = LabelFolder.find(job.data.labels, len(classes))
    image_format = survey(job).image_format
    photos, split = read_images(job, image_format, "probabilities", labels)
    device, registry = training_device(), Registry()
    champion = same_champion(
        registry, job, SegmentingSession, (job.task, ", ".join(classes), f"{image_format.channels} channel(s)"),
        lambda there: (there.task, ", ".join(there.classes), f"{there.channels} channel(s)"),
    )  # fmt: skip
    size = job.model.network or ("M" if device == "cuda" else "S")
    recipe = choose_recipe(job, size, device)
    torch.manual_seed(job.train.seed)
    widths, blocks = SIZES[size]
    network = ConditionalVAE(
        channels=image_format.channels, classes=len(classes), latent_channels=task.latent_channels,
        widths=widths, blocks=blocks,
    )  # fmt: skip

    def fitted(recipe: CropRecipe) -> FitSegmenter:
        return FitSegmenter(network, photos, split, task.gain, recipe)

    with (
        work_folder(job, work_key(job, photos, recipe, [size, classes, labels.stamp(photos.files)])) as work,
        TrackedRun(job.name) as tracked,
        tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary,
    ):
        if job.train.steps is None:
            recipe = replace(recipe, steps=steps_of(job, fitted(recipe), work, device))
        module = fitted(recipe)
        log.info("%s: network %s, %d steps of %d crops", job.task, size, recipe.steps, recipe.batch)
        tracked.params(flatten(job) | {f"chosen.{name}": value for name, value in asdict(recipe).items()})
        done = run(module, folder=work, device=device, on_check=lambda step, figures: tracked.metrics(figures, step))
        module.cpu().eval()
        temperature = measure_temperature(module, split["calibrate"])
        graph = SegmentationGraph(network, temperature).eval()

        folder = Path(temporary) / "model"
        metadata = SegmentationMetadata(
            name=job.name,
            task=job.task,
            summary=task.summary,
            channels=image_format.channels,
            bit_depth=image_format.bit_depth,
            value_range=(0, 1),
            size_multiple=network.multiple,
            halo=network.halo,
            likelihood="categorical",
            outputs=OUTPUTS,
            licence=job.data.licence,
            git_commit=git_commit(job.path.parent),
            data_digest=data_digest(photos),
            images={name: len(indices) for name, indices in split.items()},
            kintsugi=installed_version("kintsugi"),
            classes=classes,
            latent_channels=task.latent_channels,
            temperature=temperature,
        )
        log.info("exporting to ONNX and comparing it with torch")
        folder.mkdir(parents=True)
        path = folder / MODEL_FILE
        export_segmentation(graph, path, metadata.model_dump(mode="json"))
        file = ModelFile(path=path, sha256=sha256_of(path), ref=str(path))
        difference = _check_parity(file, graph, module, split["select"])
        write_split(folder / SPLIT_FILE, photos.pixel_sha256, split)
        write_job(folder, job)
        figure = Figure(
            name="dice",
            measure=lambda file, held: _dice(file, module, held),
            told=lambda mine, theirs: f"Dice {mine:.3f} against the champion's {theirs:.3f}",
        )
        decision = decide(job, file, champion, photos, split["select"], figure)
        figures = {
            "difference": difference,
            "temperature": temperature,
            "steps": float(done),
            "seconds": time.perf_counter() - start,
            **decision.figures,
        }
        tracked.text("card.md", write_segmentation_card(folder, job, metadata, size, decision, figures))
        tracked.metrics(figures, done)
        trained = register(
            registry, job, folder, run_id=tracked.run_id, data_digest=metadata.data_digest, figures=figures,
            decision=decision,
        )  # fmt: skip
        shutil.rmtree(work, ignore_errors=True)
    return trained


def _problems(job: Job) -> Iterator[str]:
    yield from common_problems(job, OWN_OPTIONS)
    if job.data.labels is None:
        yield "'data.labels' is missing: name the folder of label images, which have the names of the images"


def _check_parity(file: ModelFile, graph: SegmentationGraph, module: FitSegmenter, held: Sequence[int]) -> float:
    """Load the exported file back and compare it with torch on held-out images, whole and in part, with other latents.

    Returns:
        The largest difference of a probability.

    Raises:
        ModelError: It is above 1e-3.
    """
    session, worst, multiple = SegmentingSession(file, device="cpu"), 0.0, graph.network.multiple
    for number, image in enumerate(held[:3]):
        c, _ = module.pair(module.middle(image))
        part = c.permute(0, 2, 3, 1)[:, : c.shape[2] - min(number, c.shape[2] // multiple - 1) * multiple].contiguous()
        cells = (1, part.shape[1] // multiple, part.shape[2] // multiple, graph.network.latent_channels)
        noise = torch.randn(cells, generator=torch.Generator().manual_seed(number)) * float(number > 0)
        with torch.no_grad():
            expected = graph(part, noise)
        for found, name in zip(session.run(part.numpy(), noise.numpy()), OUTPUTS, strict=True):
            worst = max(worst, float(np.abs(found - expected[name].numpy()).max()))
    if not worst <= PARITY:  # not-a-number is no agreement either
        msg = f"the exported model does not agree with torch: probabilities are {worst:.2g} apart (limit {PARITY:g})"
        raise ModelError(f"{msg}; it was not registered")
    return worst


def _dice(file: ModelFile, module: FitSegmenter, held: Sequence[int]) -> float:
    """Mean over held-out images and classes."""
    session = SegmentingSession(file, device=settings().device, threads=settings().workers)
    found = []
    for image in held:
        c, y = module.pair(module.middle(image))
        p, _ = session.run(c.permute(0, 2, 3, 1).contiguous().numpy())
        true = y[0, 0].numpy().astype(np.uint8)
        found.append(compare_labels(classes_of(p[0]), true, len(session.metadata.classes))["dice"])
    return float(np.mean(found))
