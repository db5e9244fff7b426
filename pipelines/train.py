"""The training job: a folder of good images becomes a registered model. Reads top to bottom; read it second.

survey -> split -> fit -> freeze the scale -> export -> compare with torch -> calibrate -> register -> promote
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import nn
from torchvision.utils import make_grid

from pipelines import bundle
from pipelines.card import write_card
from pipelines.data import Plan, TrainingData, load_training_data, survey, write_split
from pipelines.errors import JobError, ModelError
from pipelines.fit import fit
from pipelines.job import Job, load_job
from pipelines.locks import locked
from pipelines.modelfile import SPLIT_FILE, ModelFile
from pipelines.models import find_model
from pipelines.promotion import Decision, decide
from pipelines.registry import Registry, Version
from pipelines.session import Session
from pipelines.settings import settings
from pipelines.tracking import TrackedRun
from vaecore.bound import LatentVariableModel, bound_maps
from vaecore.image_format import ImageFormat
from vaecore.likelihoods import IMAGE_LIKELIHOODS, DiscretisedLogisticLikelihood, Likelihood, SharedGaussianLikelihood
from vaecore.scoring import ScoringGraph, closed_form_variance
from vaecore.tasks import Task, all_tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A finished training job."""

    version: Version
    promoted: bool
    reason: str
    figures: dict[str, float]


def train_model(job: Job | Path | str, *, overrides: Sequence[str] = ()) -> TrainedModel:
    """Train, export, calibrate, register and, if the job's rule says so, promote one model.

    A job that was killed is started again with the same call and goes on from its last checkpoint.

    Args:
        job: A job, or the path of its TOML file.
        overrides: `key=value` pairs that replace keys of the file.

    Returns:
        The registered version, whether it became champion, and the figures behind that.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    job = job if isinstance(job, Job) else load_job(job, overrides)
    task = _task(job)
    start = time.perf_counter()

    plan = survey(job, job.model.stages)
    data = load_training_data(job, plan)
    likelihood_name = job.model.likelihood or task.likelihoods[0]
    steps = job.train.steps or default_steps(len(data.split["train"]))
    _announce(job, plan, data, likelihood_name, steps)

    torch.manual_seed(job.train.seed)
    model = build(job, task, plan, likelihood_name)
    network: LatentVariableModel = model  # type: ignore[assignment]  # a Protocol that modules satisfy
    device = "cuda" if torch.cuda.is_available() and settings().device != "cpu" else "cpu"

    with (
        _work_folder(job, _work_key(job, plan, data, steps)) as work,
        TrackedRun(job.name) as run,
        tempfile.TemporaryDirectory(prefix="kintsugi-") as temporary,
    ):
        run.params(_flatten(job) | {"steps": steps, "size": plan.size, "stages": plan.stages, "device": device})
        run.tags({"task": job.task, "data_digest": data.digest})
        done = fit(
            model, data, plan.image_format, job.train, steps=steps, folder=work, device=device,
            on_check=lambda step, figures: run.metrics(figures, step),
        )  # fmt: skip
        model.cpu().eval()
        _freeze_scale(network, data, plan.image_format)
        run.image("reconstructions", reconstruction_sheet(network, data, plan.image_format))

        folder = Path(temporary) / "model"
        graph = ScoringGraph(model, plan.image_format, plan.size).eval()
        metadata = bundle.describe(job, plan, data, model, likelihood_name)
        log.info("exporting to ONNX and comparing it with torch")
        file = bundle.write_model(folder, graph, metadata)
        parity = bundle.check_parity(file, graph, data.files_of("select"))
        session = Session(file, device=settings().device, threads=settings().workers)
        calibration = bundle.calibrate(session, data.files_of("calibrate"), job.calibrate.false_alarms)
        bundle.write_gallery(session, data.files_of("train"))
        write_split(folder / SPLIT_FILE, data)
        bundle.write_job(folder, job)

        registry = Registry()
        champion = _champion(registry, job.name)
        decision = decide(file, champion, data, job.promote, calibration.default_false_alarms())
        measured = {"parity": parity, "steps": float(done), "seconds": time.perf_counter() - start}
        card = write_card(folder, job, plan, data, metadata, calibration, decision, measured)
        run.text("card.md", card)
        figures = {**measured, **decision.figures}
        run.metrics(figures, done)
        version = registry.register(
            job.name, folder, run_id=run.run_id, metrics=figures,
            tags={"task": job.task, "data_digest": data.digest, "job": json.dumps(_flatten(job))[:4000]},
        )  # fmt: skip
        registry.fetch(version)  # loaded back from the registry, every digest checked, before an alias moves
        _settle(registry, version, decision)
        shutil.rmtree(work, ignore_errors=True)  # the run is registered: its checkpoints have done their work
    return TrainedModel(registry.get(job.name, str(version.version)), decision.promote, decision.reason, figures)


def default_steps(images: int) -> int:
    """Optimiser steps for a number of training images: enough passes for a few, a bounded time for many."""
    return int(min(4000, max(800, 3 * images)))


def build(job: Job, task: Task, plan: Plan, likelihood_name: str) -> nn.Module:
    """Make the job's network with its likelihood.

    Raises:
        JobError: The task does not know the likelihood.
    """
    return task.network(
        channels=plan.image_format.channels,
        size=plan.size,
        likelihood=_likelihood(job, task, likelihood_name, plan.image_format),
        latent_channels=job.model.latent_channels,
        latent_grid=job.model.latent == "grid",
        width=job.model.width,
        stages=plan.stages,
        blocks=job.model.blocks,
    )


def _likelihood(job: Job, task: Task, name: str, image_format: ImageFormat) -> Likelihood:
    if name not in task.likelihoods:
        msg = f"{job.path}: 'model.likelihood' is '{name}'; the task {job.task} knows {', '.join(task.likelihoods)}"
        raise JobError(msg)
    kind = IMAGE_LIKELIHOODS[name]
    if kind is DiscretisedLogisticLikelihood:
        return DiscretisedLogisticLikelihood(levels=image_format.maximum + 1)
    return kind()


def _task(job: Job) -> Task:
    tasks = all_tasks()
    if job.task not in tasks:
        msg = f"{job.path}: there is no task '{job.task}'; there are: {', '.join(tasks)}"
        raise JobError(msg)
    return tasks[job.task]


def _announce(job: Job, plan: Plan, data: TrainingData, likelihood: str, steps: int) -> None:
    """Say what was chosen and why, and refuse a false-alarm rate that cannot be promised."""
    split = {name: len(indices) for name, indices in data.split.items()}
    least = 1 / (split["calibrate"] + 1)
    rate = max(0.01, least) if job.calibrate.false_alarms is None else job.calibrate.false_alarms
    if rate < least:
        msg = (
            f"{job.path}: 'calibrate.false_alarms' is {rate:g}, but {split['calibrate']} calibration images can "
            f"promise {least:.2%} at best: add good images, raise 'calibrate.fraction', or ask for {least:.4f}"
        )
        raise JobError(msg)
    colour = "grey" if plan.image_format.channels == 1 else "colour"
    log.info(
        "%d %d-bit %s images: %d to train, %d to select, %d to calibrate",
        len(data.files), plan.image_format.bit_depth, colour, split["train"], split["select"], split["calibrate"],
    )  # fmt: skip
    log.info("working size %d x %d, %d halvings, likelihood %s, %d steps", *plan.size, plan.stages, likelihood, steps)
    log.info(
        "promised false-alarm rate %.2f %% (%d images can promise %.2f %%)", 100 * rate, split["calibrate"], 100 * least
    )


def _freeze_scale(network: LatentVariableModel, data: TrainingData, image_format: ImageFormat) -> None:
    if isinstance(network.likelihood, SharedGaussianLikelihood):
        parts = np.array_split(np.array(data.split["train"]), -(-len(data.split["train"]) // 32))
        batches = (data.batch(part, image_format) for part in parts)  # one at a time: the folder may not fit
        network.likelihood.set_variance(closed_form_variance(network, batches, torch.Generator().manual_seed(0)))


def reconstruction_sheet(network: LatentVariableModel, data: TrainingData, image_format: ImageFormat) -> bytes:
    """A PNG of held-out images above their reconstructions."""
    y = data.batch(data.split["select"][:8], image_format)
    noise = torch.randn((len(y), 1, *network.latent_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = bound_maps(network, y, noise).likelihood.mean
    sheet = make_grid(torch.cat([y, mean.clamp(0, 1)]), nrow=len(y), padding=4, pad_value=1.0)
    buffer = io.BytesIO()
    PillowImage.fromarray((sheet.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def _champion(registry: Registry, name: str) -> ModelFile | None:
    try:
        registry.get(name, "champion")
    except ModelError:
        return None
    return find_model(f"{name}@champion")


def _settle(registry: Registry, version: Version, decision: Decision) -> None:
    if decision.promote:
        registry.promote(version.name, version.version, reason=decision.reason, figures=decision.figures)
    else:
        registry.challenge(version.name, version.version)
    log.info(
        "version %d %s: %s", version.version, "is champion" if decision.promote else "stays challenger", decision.reason
    )


def _work_key(job: Job, plan: Plan, data: TrainingData, steps: int) -> str:
    """Digest of everything that the weights depend on: a checkpoint of other work is never resumed."""
    stamp = {
        "task": job.task,
        "model": job.model.model_dump_json(),
        "train": job.train.model_dump_json(),
        "steps": steps,
        "plan": [plan.size, plan.stages, plan.image_format.channels, plan.image_format.bit_depth],
        "train_images": [data.sha256[index] for index in data.split["train"]],
        "select_images": [data.sha256[index] for index in data.split["select"]],  # they choose the best weights
        "kintsugi": installed_version("kintsugi"),
    }
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]


@contextmanager
def _work_folder(job: Job, key: str) -> Iterator[Path]:
    """Hold the folder of a training's checkpoints, so that no other run writes or removes them meanwhile."""
    work = settings().home / "runs" / job.name / key
    work.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work.with_name(f"{key}.lock"), wait=False))
        except BlockingIOError:
            msg = f"another training of this job is running ({job.path}, {work}): wait for it, or end it first"
            raise JobError(msg) from None
        yield work


def _flatten(job: Job) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in job.model_dump(mode="json").items():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
