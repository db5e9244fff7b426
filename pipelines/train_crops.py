"""The training of an image-to-image model: a folder of images becomes a registered model. Reads top to bottom.

survey -> read -> no test images? -> split -> fit -> measure -> export -> compare with torch -> register -> promote

What a kind of model has of its own is a `CropTraining`: see `train_restorer`, `train_segmenter`, `train_colorizer`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.build import training_device
from pipelines.bundle import common_fields, write_job
from pipelines.contents import contents_of
from pipelines.crop_plan import Split, choose_recipe, data_digest, read_images, steps_of, work_key
from pipelines.data import write_split
from pipelines.errors import JobError, ModelError
from pipelines.fit_crops import CropRecipe, FitCrops
from pipelines.job import Job
from pipelines.loop import run
from pipelines.modelfile import MODEL_FILE, SPLIT_FILE, CommonMetadata, ModelFile, sha256_of
from pipelines.photos import Photos
from pipelines.plan import survey
from pipelines.promotion import Decision, unseen_by
from pipelines.registry import Registry
from pipelines.session import AnyRestoring
from pipelines.settings import settings
from pipelines.tracking import RUN_FILE, TrackedRun
from pipelines.trained import TrainedModel, champion_of, flatten, register, work_folder
from pipelines.warm_start import held_apart, start_of, take_weights
from vaecore.image_format import ImageFormat
from vaecore.restoration import psnr

log = logging.getLogger(__name__)
FitT = TypeVar("FitT", bound=FitCrops[Any])
GraphT = TypeVar("GraphT", bound=nn.Module)
MetadataT = TypeVar("MetadataT", bound=CommonMetadata)

PARITY = 1e-3  # of the range of an image: a quarter of an 8-bit level
OPTIONS = frozenset({"data.licence", "data.max_images", "calibrate.fraction", "model.network"}) | {
    f"train.{name}" for name in ("steps", "minutes", "batch", "crop", "learning_rate", "seed", "start")
}


class CropTraining(ABC, Generic[FitT, GraphT, MetadataT]):
    """What one kind of image-to-image model has of its own, in the order in which `train_crops` asks for it.

    Attributes:
        rests: What rests on the calibrate split, in words.
        budget: Network, steps and batch, in words.
        session: What the exported file runs in.
        metadata: Its kind.
        measured: Fields of the metadata that are figures of the training, too.
        parity: Most that the exported file may be apart from torch, and
        apart: how far it is, in words.
        export: Writes the file.
        figure: What versions are compared by, higher being better, and
        told: that of challenger and champion, in words.
        job: What is asked for.
        size: Of the network: a key of `SIZES`.
    """

    rests: str = "error bars"
    budget: str = "network {size}, {steps} steps of {batch} crops"
    session: type[AnyRestoring]
    metadata: type[MetadataT]
    measured: tuple[str, ...] = ()
    parity: float = PARITY
    apart: str = "{:.2g} of the range apart"
    export: Callable[[Any, Path, Mapping[str, Any]], None]
    figure: str
    told: str = "PSNR {:.2f} dB against the champion's {:.2f}"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open.

        Raises:
            JobError: The job asks for what its task cannot be.
        """
        self.job = job
        if problems := list(self.problems()):
            raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
        self.size = job.model.network or ("M" if training_device() == "cuda" else "S")

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """What the job asks for that its task cannot be, a line each; `common_problems` are those of all kinds."""

    def read(self, image_format: ImageFormat) -> tuple[Photos, Split]:
        """The images, and what each is for.

        Raises:
            KintsugiError: They are not what such a model learns from.
        """
        return read_images(self.job, image_format, self.rests)

    @abstractmethod
    def does(self, channels: int) -> tuple[str, ...]:
        """What the model will do, in words that a champion has to share."""

    @abstractmethod
    def champion_does(self, metadata: MetadataT) -> tuple[str, ...]:
        """The same words of a champion."""

    def recipe(self, device: str) -> CropRecipe:
        """What the job leaves open of the training; the steps are a guess where it asks for minutes."""
        return choose_recipe(self.job, self.size, device)

    @abstractmethod
    def fitted(self, photos: Photos, split: Split) -> Callable[[CropRecipe], FitT]:
        """Build the network; from a recipe to the training of it."""

    @abstractmethod
    def choices(self, photos: Photos) -> Sequence[Any]:
        """What the weights depend on that `work_key` does not know, for JSON."""

    def judged(self, module: FitT) -> FitT:
        """The trained network with held-out images as it will be given them."""
        return module

    @abstractmethod
    def finish(self, module: FitT) -> tuple[GraphT, dict[str, Any]]:
        """What is exported, with what held-out images teach; and this kind's own fields of the metadata."""

    @abstractmethod
    def pair(self, module: FitT, image: int, number: int) -> tuple[Tensor, Tensor]:
        """What the network is given of the middle of a held-out image, and what it should give, both (1, C, H, W).

        Always the same for an image at a place in a list of them (`number`).
        """

    @abstractmethod
    def inputs(self, graph: GraphT, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """A part of an image (1, H, W, C), another for each number, and what else the graph takes."""

    def merit(self, restored: Tensor, y: Tensor) -> Tensor:
        """The figure of one image, (1,)."""
        return psnr(restored, y)

    @abstractmethod
    def card(self, folder: Path, metadata: MetadataT, decision: Decision, figures: dict[str, float]) -> str:
        """Write card.md into the bundle and return its text."""


AnyTraining = CropTraining[Any, Any, Any]


def train_crops(training: AnyTraining, why: str | None = None) -> TrainedModel:
    """Train, export, register and, if the job's rule says so, promote one image-to-image model.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    start, job = time.perf_counter(), training.job
    seen = contents_of(job)
    photos, split = training.read(survey(job).image_format)
    device, registry = training_device(), Registry()
    champion, begun = _same_champion(registry, training, photos.image_format.channels), start_of(job)
    if begun is not None:
        split = held_apart(split, photos.pixel_sha256, begun)
    recipe = training.recipe(device)
    torch.manual_seed(job.train.seed)
    fitted = training.fitted(photos, split)
    choices = list(training.choices(photos))
    if begun is not None:
        take_weights(fitted(recipe).network, begun)
        choices.append(begun.sha256)

    with (
        work_folder(job, work_key(job, photos, recipe, choices)) as work,
        TrackedRun(job.name, kept=work / RUN_FILE) as tracked,
        tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary,
    ):
        if job.train.steps is None:
            recipe = replace(recipe, steps=steps_of(job, fitted(recipe), work, device))
        module = fitted(recipe)
        log.info("%s: %s", job.task, training.budget.format(size=training.size, **asdict(recipe)))
        tracked.params(flatten(job) | {f"chosen.{name}": value for name, value in asdict(recipe).items()})
        done = run(module, folder=work, device=device, on_check=lambda step, figures: tracked.metrics(figures, step))
        module = training.judged(module.cpu().eval())
        graph, own_fields = training.finish(module)

        folder = Path(temporary) / "model"
        fields = common_fields(job, photos.image_format, data_digest(photos), split)
        metadata = training.metadata(**fields | {"licence": job.data.licence, "value_range": (0, 1)} | own_fields)
        log.info("exporting to ONNX and comparing it with torch")
        folder.mkdir(parents=True)
        path = folder / MODEL_FILE
        training.export(graph, path, metadata.model_dump(mode="json"))
        file = ModelFile(path=path, sha256=sha256_of(path), ref=str(path))
        difference = _check_parity(training, module, graph, file)
        write_split(folder / SPLIT_FILE, photos.pixel_sha256, split, seen)
        write_job(folder, job)
        decision = _decide(training, module, file, champion)
        figures = {
            "difference": difference,
            **{name: getattr(metadata, name) for name in training.measured},
            "steps": float(done),
            "seconds": time.perf_counter() - start,
            **decision.figures,
        }
        tracked.text("card.md", training.card(folder, metadata, decision, figures))
        tracked.metrics(figures, done)
        trained = register(
            registry, job, folder, run_id=tracked.run_id, data_digest=metadata.data_digest, figures=figures,
            decision=decision, why=why,
        )  # fmt: skip
        shutil.rmtree(work, ignore_errors=True)  # the run is registered: its checkpoints have done their work
    return trained


def common_problems(job: Job, options: Collection[str]) -> Iterator[str]:
    """What a job asks for that no training on crops can be, a line each.

    Args:
        job: The job.
        options: Keys that have a meaning for its task.
    """
    unused = [key for key in job.set_options("data", "model", "train", "calibrate") if key not in options]
    yield from (f"'{key}' has no meaning for {job.task}; leave it out" for key in unused)
    if job.train.steps and job.train.minutes:
        yield "'train.steps' and 'train.minutes' both say how long: leave one out"


def _same_champion(registry: Registry, training: AnyTraining, channels: int) -> ModelFile | None:
    """Today's champion, which has to do the same as what is trained.

    Raises:
        JobError: It does something else.
    """
    job, mine = training.job, training.does(channels)
    champion = champion_of(registry, job.name)
    if champion is None:
        return None
    try:
        theirs = training.champion_does(training.session(champion, device="cpu").metadata)
    except ModelError as error:
        raise JobError(f"{job.path}: the name '{job.name}' is taken: {error}; choose another name") from None
    if mine != theirs:
        raise JobError(
            f"{job.path}: the champion of '{job.name}' does {', '.join(theirs)}, this job {', '.join(mine)}: choose "
            "another name"
        )
    return champion


def _check_parity(training: AnyTraining, module: FitCrops[Any], graph: nn.Module, file: ModelFile) -> float:
    """Load the exported file back and compare it with torch on held-out images, whole and in part, with other latents.

    Returns:
        The largest difference, as a share of the range of values.

    Raises:
        ModelError: It is above the limit.
    """
    session, worst = training.session(file, device="cpu"), 0.0
    for number, image in enumerate(module.split["select"][:3]):
        c, _ = training.pair(module, image, number)
        inputs = training.inputs(graph, c.permute(0, 2, 3, 1), number)
        with torch.no_grad():
            expected = graph(*inputs)
        for name, found in zip(expected, session.run(*(each.numpy() for each in inputs)), strict=True):
            worst = max(worst, float(np.abs(found - expected[name].numpy()).max()))
    if not worst <= training.parity:  # not-a-number is no agreement either
        apart = training.apart.format(worst)
        msg = f"the exported model does not agree with torch: {apart} (limit {training.parity:g})"
        raise ModelError(f"{msg}; it was not registered")
    return worst


def noise_of(shape: Sequence[int], number: int) -> Tensor:
    """Standard normal latents, others for each number; zeros for the first, which is what batch jobs take."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number)) * float(number > 0)


def _decide(training: AnyTraining, module: FitCrops[Any], file: ModelFile, champion: ModelFile | None) -> Decision:
    """The promotion rule: one figure of challenger and champion on the same held-out images, those new to both if any.

    Args:
        training: Its job has the rule and the tolerance; it says what is compared.
        module: Has the images.
        file: The challenger.
        champion: Today's, if there is one.
    """
    rule = training.job.promote
    held = unseen_by(champion, module.split["select"], module.photos.pixel_sha256)
    mine = _measure(training, module, file, held)
    figures = {f"challenger_{training.figure}": mine, "held_out_images": float(len(held))}
    if champion is None:
        reason = "the first version; its exported file gives the values of the trained network"
        return Decision(rule.rule != "never", reason, figures)
    theirs = _measure(training, module, champion, held)
    figures |= {f"champion_{training.figure}": theirs}
    if rule.rule != "better":
        return Decision(rule.rule == "always", f"the job's rule is '{rule.rule}'", figures)
    better = mine >= theirs - rule.tolerance
    comparison = f"{training.told.format(mine, theirs)} on {len(held)} held-out images"
    return Decision(better, f"{'not worse' if better else 'worse'}: {comparison}", figures)


def _measure(training: AnyTraining, module: FitCrops[Any], file: ModelFile, held: Sequence[int]) -> float:
    """The figure of a model file, mean over held-out images."""
    session = training.session(file, device=settings().device, threads=settings().workers)
    found = []
    for number, image in enumerate(held):
        c, y = training.pair(module, image, number)
        restored, _ = session.run(c.permute(0, 2, 3, 1).contiguous().numpy())
        found.append(training.merit(torch.from_numpy(restored).permute(0, 3, 1, 2), y))
    return float(torch.cat(found).mean())
