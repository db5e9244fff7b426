"""The training of models that mend images: a folder of clean images becomes a registered model.

survey -> read -> no test images? -> split -> fit -> error bars -> export -> compare with torch -> register -> promote
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.build import training_device
from pipelines.bundle import git_commit, write_job
from pipelines.card import write_restoration_card
from pipelines.data import SplitName, write_split
from pipelines.error_bars import measure_error_bars
from pipelines.errors import JobError, ModelError
from pipelines.fit_crops import CropRecipe
from pipelines.fit_restorer import Damaged, FitRestorer
from pipelines.job import Job
from pipelines.loop import run
from pipelines.modelfile import MODEL_FILE, SPLIT_FILE, ModelFile, RestorationMetadata, sha256_of
from pipelines.photos import Photos
from pipelines.plan import survey
from pipelines.registry import Registry
from pipelines.session import RestoringSession
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
from vaecore.degradations import as_files
from vaecore.export import export_restoration
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import SIZES, Restorer
from vaecore.restoration import OUTPUTS, RestorationGraph, psnr
from vaecore.tasks import Damage, Restoration, restorations

log = logging.getLogger(__name__)

OWN_OPTIONS = OPTIONS | {"model.scale", "model.damage", "model.level"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job asks for, every choice made."""

    task: Restoration
    size: str  # of the network: a key of SIZES
    scale: int
    damage: str
    strengths: tuple[float, float]
    largest: int = 255  # value of the files

    @property
    def levels(self) -> tuple[float, ...]:
        """What it is measured at."""
        return self.task.levels if self.strengths[0] < self.strengths[1] else self.strengths[:1]

    def damaged(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """What the network is given in training: each image damaged as strongly as chance will have it.

        Every other one is clipped and rounded as files are, which hold no noise below black: the rest is as papers have
        it. A network that has seen the latter only takes clipped noise for light, and is sure of it.
        """
        files = torch.rand(len(y), generator=generator, device=generator.device) < 1 / 2
        c = self._damaged(y, generator)
        return torch.where(files.to(y.device)[:, None, None, None], as_files(c, self.largest), c)

    def damaged_files(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """The same where all are files, as those of a folder are: error bars are brought to these."""
        return as_files(self._damaged(y, generator), self.largest)

    def _damaged(self, y: Tensor, generator: torch.Generator) -> Tensor:
        low, high = self.strengths
        strengths = low + (high - low) * torch.rand(len(y), generator=generator, device=generator.device)
        damage: Damage = self.task.damages[self.damage]
        return damage(y, strengths.to(y), generator)


def make_plan(job: Job) -> Plan:
    """Choose what the job leaves open.

    Raises:
        JobError: The job asks for what its task cannot be.
    """
    task, table = restorations()[job.task], job.model
    if problems := list(_problems(job, task)):
        raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
    scale = table.scale or task.scales[0]
    low, high = (float(scale),) * 2 if len(task.scales) > 1 else task.strengths
    if table.level is not None:
        low = high = table.level
    damage = table.damage or next(iter(task.damages))
    size = table.network or ("M" if training_device() == "cuda" else "S")
    return Plan(task, size, scale, damage, (low, high))


def _problems(job: Job, task: Restoration) -> Iterator[str]:
    table, several = job.model, len(task.scales) > 1
    yield from common_problems(
        job, OWN_OPTIONS if table.scale in (None, *task.scales) else OWN_OPTIONS - {"model.scale"}
    )
    if table.damage is not None and table.damage not in task.damages:
        yield f"'model.damage' is '{table.damage}'; the task {job.task} knows {', '.join(task.damages)}"
    low, high = task.strengths
    if table.level is not None and several:
        yield f"'model.level' has no meaning for {job.task}, which has 'model.scale'"
    elif table.level is not None and not low <= table.level <= high:
        yield f"'model.level' is {table.level:g}: {task.level}, from {low:g} to {high:g}"


def train_restorer(job: Job) -> TrainedModel:
    """Train, export, register and, if the job's rule says so, promote one model that mends images.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    start, plan = time.perf_counter(), make_plan(job)
    image_format = survey(job).image_format
    plan = replace(plan, largest=image_format.maximum)
    photos, split = read_images(job, image_format, "error bars")
    device, registry = training_device(), Registry()
    champion = same_champion(
        registry, job, RestoringSession, (job.task, f"{image_format.channels} channel(s)", f"scale {plan.scale}"),
        lambda there: (there.task, f"{there.channels} channel(s)", f"scale {there.scale}"),
    )  # fmt: skip
    recipe = choose_recipe(job, plan.size, device, plan.scale)
    torch.manual_seed(job.train.seed)
    widths, blocks = SIZES[plan.size]
    network = Restorer(
        channels=image_format.channels, outputs=image_format.channels, widths=widths, blocks=blocks, upscale=plan.scale
    )

    def fitted(damaged: Damaged, recipe: CropRecipe) -> FitRestorer:
        return FitRestorer(network, GaussianLikelihood(), photos, split, damaged, recipe)

    with (
        work_folder(job, work_key(job, photos, recipe, [plan.size, plan.scale, plan.damage, plan.strengths])) as work,
        TrackedRun(job.name) as tracked,
        tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary,
    ):
        if job.train.steps is None:
            recipe = replace(recipe, steps=steps_of(job, fitted(plan.damaged, recipe), work, device))
        module = fitted(plan.damaged, recipe)
        log.info("%s: network %s, %d steps of %d crops", job.task, plan.size, recipe.steps, recipe.batch)
        tracked.params(flatten(job) | {f"chosen.{name}": value for name, value in asdict(recipe).items()})
        done = run(module, folder=work, device=device, on_check=lambda step, figures: tracked.metrics(figures, step))
        module.cpu().eval()
        judged = fitted(plan.damaged_files, recipe).eval()
        bars = measure_error_bars(judged, split["calibrate"])
        graph = RestorationGraph(network, module.likelihood, bars.factor).eval()

        folder = Path(temporary) / "model"
        metadata = _describe(job, plan, photos, split, graph, bars.intervals)
        log.info("exporting to ONNX and comparing it with torch")
        file = _write_model(folder, graph, metadata)
        examples = _Held(judged, split["select"])
        difference = _check_parity(file, graph, examples)
        write_split(folder / SPLIT_FILE, photos.pixel_sha256, split)
        write_job(folder, job)
        figure = Figure(
            name="psnr",
            measure=lambda file, held: _psnr(file, replace(examples, indices=held)),
            told=lambda mine, theirs: f"PSNR {mine:.2f} dB against the champion's {theirs:.2f}",
        )
        decision = decide(job, file, champion, photos, split["select"], figure)
        figures = {
            "difference": difference,
            "steps": float(done),
            "seconds": time.perf_counter() - start,
            **decision.figures,
        }
        tracked.text("card.md", write_restoration_card(folder, job, metadata, plan.size, decision, figures))
        tracked.metrics(figures, done)
        trained = register(
            registry, job, folder, run_id=tracked.run_id, data_digest=metadata.data_digest, figures=figures,
            decision=decision,
        )  # fmt: skip
        shutil.rmtree(work, ignore_errors=True)
    return trained


@dataclass(frozen=True, slots=True)
class _Held:
    """Held-out images in the form that the exported file takes."""

    module: FitRestorer
    indices: Sequence[int]

    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        """The middle of an image as it is, and damaged, both (1, H, W, C) in [0, 1]: always the same."""
        y, c = self.module.damaged_middle(self.indices[number], key=3 * 10**9 + number)
        return y.permute(0, 2, 3, 1), c.permute(0, 2, 3, 1)


def _describe(
    job: Job,
    plan: Plan,
    photos: Photos,
    split: Mapping[SplitName, Sequence[int]],
    graph: RestorationGraph,
    intervals: dict[str, float],
) -> RestorationMetadata:
    form = photos.image_format
    return RestorationMetadata(
        name=job.name,
        task=job.task,
        summary=plan.task.summary,
        channels=form.channels,
        bit_depth=form.bit_depth,
        value_range=(0, 1),
        size_multiple=graph.network.multiple,
        halo=graph.network.halo,
        likelihood="gaussian",
        outputs=OUTPUTS,
        licence=job.data.licence,
        git_commit=git_commit(job.path.parent),
        data_digest=data_digest(photos),
        images={name: len(indices) for name, indices in split.items()},
        kintsugi=installed_version("kintsugi"),
        scale=plan.scale,
        damage=plan.damage,
        level=plan.task.level,
        strengths=plan.strengths,
        levels=plan.levels,
        luma=plan.task.luma,
        intervals=intervals,
    )


def _write_model(folder: Path, graph: RestorationGraph, metadata: RestorationMetadata) -> ModelFile:
    folder.mkdir(parents=True)
    path = folder / MODEL_FILE
    export_restoration(graph, path, metadata.model_dump(mode="json"))
    return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))


def _check_parity(file: ModelFile, graph: RestorationGraph, held: _Held) -> float:
    """Load the exported file back and compare it with torch on damaged images, whole and in part.

    Returns:
        The largest difference, as a share of the range of an image.

    Raises:
        ModelError: It is above 1e-3.
    """
    session, worst = RestoringSession(file, device="cpu"), 0.0
    multiple = graph.network.multiple
    for number in range(min(3, len(held.indices))):
        _, c = held.pair(number)
        down, left = (min(number, length // multiple - 1) * multiple for length in c.shape[1:3])
        part = c[:, down:, : c.shape[2] - left].contiguous()
        with torch.no_grad():
            expected = graph(part)
        for found, name in zip(session.run(part.numpy()), OUTPUTS, strict=True):
            worst = max(worst, float(np.abs(found - expected[name].numpy()).max()))
    if not worst <= PARITY:  # not-a-number is no agreement either
        msg = f"the exported model does not agree with torch: {worst:.2g} of the range apart (limit {PARITY:g})"
        raise ModelError(f"{msg}; it was not registered")
    return worst


def _psnr(file: ModelFile, held: _Held) -> float:
    """Mean over held-out images, damaged as in training."""
    session = RestoringSession(file, device=settings().device, threads=settings().workers)
    found = []
    for number in range(len(held.indices)):
        y, c = held.pair(number)
        restored, _ = session.run(c.contiguous().numpy())
        found.append(psnr(torch.from_numpy(restored).permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)))
    return float(torch.cat(found).mean())
