"""The training of models that colour grey images: a folder of colour images becomes a registered model.

survey -> read, reduced -> no test images? -> split -> fit -> gain, error bars -> export -> compare with torch
-> register -> promote
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch

from pipelines.build import training_device
from pipelines.bundle import git_commit, write_job
from pipelines.card import write_colorization_card
from pipelines.colour import is_colourful
from pipelines.data import SplitName, write_split
from pipelines.error_bars import measure_error_bars, measure_gain
from pipelines.errors import DataError, JobError, ModelError
from pipelines.fit_colorizer import FitColorizer
from pipelines.fit_crops import CropRecipe
from pipelines.job import Job
from pipelines.loop import run
from pipelines.modelfile import MODEL_FILE, SPLIT_FILE, ColorizationMetadata, ModelFile, sha256_of
from pipelines.photos import Photos
from pipelines.plan import survey
from pipelines.registry import Registry
from pipelines.session import ColorizingSession
from pipelines.settings import settings
from pipelines.tracking import TrackedRun
from pipelines.train_crops import (
    OPTIONS,
    Figure,
    common_problems,
    data_digest,
    decide,
    read_images,
    same_champion,
    steps_of,
    work_key,
)
from pipelines.trained import TrainedModel, flatten, register, work_folder
from vaecore.backbones import Backbone
from vaecore.colorization import OUTPUTS, ColorizationGraph, to_luma
from vaecore.export import export_colorization
from vaecore.networks import Colorizer
from vaecore.restoration import psnr
from vaecore.tasks import colorizations

log = logging.getLogger(__name__)
OF_BACKBONE = {"model.backbone", "model.backbone_weights"}
OWN_OPTIONS = (OPTIONS | OF_BACKBONE | {"train.patience"}) - {"model.network", "train.crop"}
HALF_PARITY = 4e-3  # of the range of an image: one 8-bit level, since the file's weights are in half precision
BATCH, LEARNING_RATE = 8, 1e-3


def train_colorizer(job: Job) -> TrainedModel:
    """Train, export, register and, if the job's rule says so, promote one model that colours grey images.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    start, task = time.perf_counter(), colorizations()[job.task]
    if problems := list(_problems(job)):
        raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
    image_format = survey(job).image_format
    if image_format.channels == 1:
        raise JobError(f"{job.path}: the images under {job.data.train} are grey: colours are learned from colour ones")
    backbone = _backbone(job, task.strides)
    photos, split = read_images(job, image_format, "error bars", short_side=task.short_side)
    split = _with_colours(photos, split, job.data.train)
    device, registry = training_device(), Registry()
    champion = same_champion(registry, job, ColorizingSession, (job.task,), lambda there: (there.task,))
    recipe = CropRecipe(
        steps=job.train.steps or 1,
        batch=job.train.batch or BATCH,
        crop=task.short_side,
        learning_rate=job.train.learning_rate or LEARNING_RATE,
        seed=job.train.seed,
    )
    torch.manual_seed(job.train.seed)
    network = Colorizer(backbone, latent_channels=task.latent_channels)

    def fitted(recipe: CropRecipe) -> FitColorizer:
        return FitColorizer(network, photos, split, task, recipe, job.train.patience)

    with (
        work_folder(job, work_key(job, photos, recipe, [task.summary, backbone.digest()])) as work,
        TrackedRun(job.name) as tracked,
        tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary,
    ):
        if job.train.steps is None:
            recipe = replace(recipe, steps=steps_of(job, fitted(recipe), work, device))
        module = fitted(recipe)
        log.info("%s: %d steps of %d views", job.task, recipe.steps, recipe.batch)
        tracked.params(flatten(job) | {f"chosen.{name}": value for name, value in asdict(recipe).items()})
        done = run(module, folder=work, device=device, on_check=lambda step, figures: tracked.metrics(figures, step))
        module.cpu().eval()
        gain = measure_gain(module, split["calibrate"])
        bars = measure_error_bars(module, split["calibrate"], repeats=1)
        graph = ColorizationGraph(network, task.side, gain, bars.factor).eval()

        folder = Path(temporary) / "model"
        metadata = ColorizationMetadata(
            name=job.name,
            task=job.task,
            summary=task.summary,
            channels=1,
            bit_depth=image_format.bit_depth,
            value_range=(0, 1),
            size_multiple=1,
            halo=None,
            likelihood="gaussian",
            outputs=OUTPUTS,
            licence=job.data.licence,
            git_commit=git_commit(job.path.parent),
            data_digest=data_digest(photos),
            images={name: len(indices) for name, indices in split.items()},
            kintsugi=installed_version("kintsugi"),
            side=task.side,
            latents=task.latent_channels,
            gain=gain,
            backbone=backbone.name,
            intervals=bars.intervals,
        )
        log.info("exporting to ONNX and comparing it with torch")
        folder.mkdir(parents=True)
        path = folder / MODEL_FILE
        export_colorization(graph, path, metadata.model_dump(mode="json"))
        file = ModelFile(path=path, sha256=sha256_of(path), ref=str(path))
        difference = _check_parity(file, graph, module, split["select"])
        write_split(folder / SPLIT_FILE, photos.pixel_sha256, split)
        write_job(folder, job)
        figure = Figure(
            name="colour_psnr",
            measure=lambda file, held: _psnr(file, module, held),
            told=lambda mine, theirs: f"PSNR {mine:.2f} dB against the champion's {theirs:.2f}",
        )
        decision = decide(job, file, champion, photos, split["select"], figure)
        figures = {
            "difference": difference,
            "steps": float(done),
            "seconds": time.perf_counter() - start,
            **decision.figures,
        }
        tracked.text("card.md", write_colorization_card(folder, job, metadata, decision, figures))
        tracked.metrics(figures, done)
        trained = register(
            registry, job, folder, run_id=tracked.run_id, data_digest=metadata.data_digest, figures=figures,
            decision=decision,
        )  # fmt: skip
        shutil.rmtree(work, ignore_errors=True)
    return trained


def _problems(job: Job) -> Iterator[str]:
    yield from common_problems(job, OWN_OPTIONS)
    if job.train.batch == 1:
        yield "'train.batch' is 1: one half of a batch trains the latents, the other the mean; give at least 2"


def _with_colours(
    photos: Photos, split: Mapping[SplitName, Sequence[int]], folder: Path
) -> dict[SplitName, tuple[int, ...]]:
    """A split without the images that are grey: that they are is no news about colours.

    Raises:
        DataError: None is left in a part of it.
    """
    found: dict[SplitName, tuple[int, ...]] = {
        name: tuple(index for index in indices if is_colourful(photos.image(index))) for name, indices in split.items()
    }
    if grey := sum(map(len, split.values())) - sum(map(len, found.values())):
        log.warning("left out %d images that are grey", grey)
    if empty := [name for name, indices in found.items() if not indices]:
        raise DataError(f"too few images under {folder} have colours: none is left to {empty[0]}")
    return found


def _backbone(job: Job, strides: Sequence[int]) -> Backbone:
    try:
        return Backbone(job.model.backbone, strides=strides, weights=job.model.backbone_weights)
    except (ValueError, OSError) as error:
        raise JobError(f"{job.path}: 'model.backbone' {job.model.backbone}: {error}") from None


def _check_parity(file: ModelFile, graph: ColorizationGraph, module: FitColorizer, held: Sequence[int]) -> float:
    """Load the exported file back and compare it with torch on held-out images, whole and in part, and samples.

    Returns:
        The largest difference, as a share of the range of an image.

    Raises:
        ModelError: It is above an 8-bit level.
    """
    session, worst = ColorizingSession(file, device="cpu"), 0.0
    for number, image in enumerate(held[:3]):
        whole = to_luma(module.to_unit(module.middle(image))).permute(0, 2, 3, 1)
        luma = whole[:, :: number + 1, :: 2 * number + 1].contiguous()
        shape = (1, graph.network.latent_channels)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(number)) * float(number > 0)
        with torch.no_grad():
            expected = graph(luma, noise)
        for found, name in zip(session.run(luma.numpy(), noise.numpy()), OUTPUTS, strict=True):
            worst = max(worst, float(np.abs(found - expected[name].numpy()).max()))
    if not worst <= HALF_PARITY:  # not-a-number is no agreement either
        msg = f"the exported model does not agree with torch: {worst:.2g} of the range apart (limit {HALF_PARITY:g})"
        raise ModelError(f"{msg}; it was not registered")
    return worst


def _psnr(file: ModelFile, module: FitColorizer, held: Sequence[int]) -> float:
    """Mean over held-out images."""
    session = ColorizingSession(file, device=settings().device, threads=settings().workers)
    found = []
    for image in held:
        y = module.to_unit(module.middle(image))
        restored, _ = session.run(to_luma(y).permute(0, 2, 3, 1).contiguous().numpy())
        found.append(psnr(torch.from_numpy(restored).permute(0, 3, 1, 2), y))
    return float(torch.cat(found).mean())
