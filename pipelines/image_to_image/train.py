"""The training of an image-to-image model: a folder of images becomes a registered model. Reads top to bottom.

survey -> read -> no test images? -> split -> fit -> measure -> export -> compare with torch -> register -> promote

What a kind of model has of its own is a `CropTraining`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipelines.data.crop_images import CropImages
from pipelines.data.file_digests import contents_of
from pipelines.data.plan import survey
from pipelines.data.splits import write_split
from pipelines.errors import JobError, ModelError
from pipelines.image_to_image.fit import TRIAL_SPAN, CropRecipe, FitCrops
from pipelines.image_to_image.kind import AnyTraining
from pipelines.image_to_image.plan import Split, count_steps, digest_images, digest_work, find_pieces
from pipelines.image_to_image.warm_start import find_start, hold_out_unseen, take_weights
from pipelines.models.model_file import MODEL_FILE, SPLIT_FILE, ModelFile, sha256_of
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun
from pipelines.settings import settings
from pipelines.training.adversary import Opposition, announce
from pipelines.training.bundle import common_fields, write_job
from pipelines.training.loop import run
from pipelines.training.network import training_device
from pipelines.training.promotion import Decision, find_unseen
from pipelines.training.registration import MadeBundle, TrainedModel, champion_of, train_once

log = logging.getLogger(__name__)


def train_crops(training: AnyTraining, why: str | None = None, *, fresh: bool = False) -> TrainedModel:
    """Train, export, register and, if the job's rule says so, promote one image-to-image model.

    Args:
        training: What is trained.
        why: What gave rise to it, for the record.
        fresh: Begin from the first step, whatever an earlier run left.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    job, prepared = training.job, prepare(training)
    registry = Registry()
    champion = _same_champion(registry, training, prepared.images.image_format.channels)

    def make(work: Path, folder: Path, run: TrackedRun) -> MadeBundle:
        return make_bundle(training, prepared, work, folder, run, champion)

    return train_once(job, prepared.key, digest_images(prepared.images), make, why=why, fresh=fresh)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a training begins with.

    Attributes:
        images: The images.
        split: What each is for.
        seen: Contents of the folders as they were before they were read.
        device: Where to train.
        recipe: Budget and batch; the steps are a guess where the job asks for minutes.
        build_fit: From a recipe to the training.
        key: Names the folder of checkpoints.
        start: On the clock, when it began.
    """

    images: CropImages
    split: Split
    seen: frozenset[str]
    device: str
    recipe: CropRecipe
    build_fit: Callable[[CropRecipe], FitCrops[Any]]
    key: str
    start: float


class Notes(Protocol):
    """Where a training notes what it does."""

    def params(self, values: Mapping[str, Any]) -> None:
        """What was chosen."""

    def metrics(self, figures: Mapping[str, float], step: int) -> None:
        """Figures at a step."""

    def text(self, name: str, text: str) -> None:
        """A file."""


def prepare(training: AnyTraining) -> Prepared:
    """Read the images and choose what the job leaves open.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    start, job = time.perf_counter(), training.job
    seen = contents_of(job)
    images, split = training.read(survey(job).image_format)
    device, begun = training_device(), find_start(job)
    if begun is not None:
        split = hold_out_unseen(split, images.pixel_sha256, begun, find_pieces(job, images))
    recipe = training.choose_recipe(device)
    torch.manual_seed(job.train.seed)
    build_fit = training.build_fit(images, split)
    choices = list(training.list_choices(images))
    if begun is not None:
        take_weights(build_fit(recipe).network, begun)
        choices.append(begun.sha256)
    return Prepared(
        images, split, seen, device, recipe, build_fit, digest_work(job, images, split, recipe, choices), start
    )


def make_bundle(
    training: AnyTraining,
    prepared: Prepared,
    work: Path,
    folder: Path,
    notes: Notes,
    champion: ModelFile | None = None,
) -> MadeBundle:
    """Train, export, compare with torch and with the champion. Needs no registry.

    Args:
        training: The kind of model.
        prepared: Of it.
        work: Checkpoints; a training that was killed goes on from there.
        folder: Where the bundle goes; does not exist yet.
        notes: Told what happens.
        champion: To be compared with.

    Raises:
        ModelError: The exported file does not agree with torch.
    """
    job, images, split, recipe = training.job, prepared.images, prepared.split, prepared.recipe
    if job.train.steps is None:
        trial = prepared.build_fit(replace(recipe, steps=TRIAL_SPAN))
        recipe = replace(recipe, steps=count_steps(job, trial, work, prepared.device))
    module = prepared.build_fit(recipe)
    log.info("%s: %s", job.task, training.budget.format(size=training.size, **asdict(recipe)))
    announce(Opposition.of(job.train), recipe.steps)
    notes.params(job.flatten() | {f"chosen.{name}": value for name, value in asdict(recipe).items()})
    done = run(module, folder=work, device=prepared.device, on_check=lambda step, found: notes.metrics(found, step))
    module = training.prepare_calibration(module.cpu().eval())
    graph, own_fields = training.finish(module)

    fields = common_fields(job, images.image_format, digest_images(images), split)
    fields |= {"licence": job.data.licence, "value_range": (0, 1), "scales_bits": True}
    metadata = training.metadata(**fields | own_fields)
    log.info("exporting to ONNX and comparing it with torch")
    folder.mkdir(parents=True)
    path = folder / MODEL_FILE
    training.export(graph, path, metadata.model_dump(mode="json"))
    file = ModelFile(path=path, sha256=sha256_of(path), ref=str(path))
    difference = _check_parity(training, module, graph, file)
    write_split(folder / SPLIT_FILE, images.pixel_sha256, split, prepared.seen)
    write_job(folder, job)
    decision = _decide(training, module, file, champion)
    figures = {
        "difference": difference,
        **{name: getattr(metadata, name) for name in training.measured},
        "steps": float(done),
        "seconds": time.perf_counter() - prepared.start,
        **decision.figures,
    }
    notes.text("card.md", training.write_card(folder, metadata, decision, figures))
    notes.metrics(figures, done)
    return MadeBundle(figures, decision)


def _same_champion(registry: Registry, training: AnyTraining, channels: int) -> ModelFile | None:
    """Today's champion, which has to do the same as what is trained.

    Raises:
        JobError: It does something else.
    """
    job, mine = training.job, training.describe_model(channels)
    champion = champion_of(registry, job.name)
    if champion is None:
        return None
    try:
        theirs = training.describe_champion(training.session(champion, device="cpu").metadata)
    except ModelError as error:
        raise JobError(f"{job.path}: the name '{job.name}' is already used: {error}; choose another name") from None
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
        c, _ = training.make_pair(module, image, number)
        inputs = training.make_inputs(graph, c.permute(0, 2, 3, 1), number)
        with torch.no_grad():
            expected = graph(*inputs)
        for name, found in zip(expected, session.run(*(each.numpy() for each in inputs)), strict=True):
            worst = max(worst, float(np.abs(found - expected[name].numpy()).max()))
    if not worst <= training.parity:  # not-a-number is no agreement either
        apart = training.difference.format(worst)
        msg = f"the exported model does not agree with torch: {apart} (limit {training.parity:g})"
        raise ModelError(f"{msg}; it was not registered")
    return worst


def _decide(training: AnyTraining, module: FitCrops[Any], file: ModelFile, champion: ModelFile | None) -> Decision:
    """The promotion rule: one figure of challenger and champion on the same held-out images, those new to both if any.

    Args:
        training: Its job has the rule and the tolerance; it says what is compared.
        module: Has the images.
        file: The challenger.
        champion: Today's, if there is one.
    """
    rule = training.job.promote
    pieces = find_pieces(training.job, module.images)
    unseen = find_unseen(champion, module.split["select"], module.images.pixel_sha256, pieces)
    held = unseen or module.split["select"]
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
    known = "" if unseen else "; the champion was trained on all of them"
    comparison = f"{training.comparison.format(mine, theirs)} on {len(held)} held-out images{known}"
    return Decision(better, f"{'not worse' if better else 'worse'}: {comparison}", figures)


def _measure(training: AnyTraining, module: FitCrops[Any], file: ModelFile, held: Sequence[int]) -> float:
    """The figure of a model file, mean over held-out images."""
    session = training.session(file, device=settings().device, threads=settings().workers)
    found = []
    for number, image in enumerate(held):
        c, y = training.make_pair(module, image, number)
        restored, _ = session.run(c.permute(0, 2, 3, 1).contiguous().numpy())
        found.append(training.measure(torch.from_numpy(restored).permute(0, 3, 1, 2), y))
    return float(torch.cat(found).mean())
