"""The training job: make a registered model from a folder of good images. Read this file second, top to bottom.

survey -> split -> fit -> freeze the scale -> export -> compare with torch -> calibrate -> register -> promote
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.anomaly.calibration import Calibration
from pipelines.base.percentages import promised
from pipelines.base.software import software_version
from pipelines.base.subsample import evenly_spaced
from pipelines.base.warned import keep_warnings
from pipelines.data.cache import reading_anew
from pipelines.data.classes import named
from pipelines.data.examples import Changes, make_examples
from pipelines.data.file_digests import contents_of
from pipelines.data.pieces import announce_pieces, warn_of_crossing
from pipelines.data.plan import Plan, make_plan, survey, warn_of_dark
from pipelines.data.splits import FEWEST_SELECT, ONE_PERCENT_NEEDS, is_crossed, write_split
from pipelines.data.training_images import TrainingData, load_training_data
from pipelines.errors import JobError
from pipelines.image_to_image.colorizer import ColorizerTraining
from pipelines.image_to_image.kind import AnyTraining
from pipelines.image_to_image.restorer import RestorerTraining
from pipelines.image_to_image.segmenter import SegmenterTraining
from pipelines.image_to_image.train import train_crops
from pipelines.image_to_image.unpaired import UnpairedTraining
from pipelines.jobfile.job import Job, load_job
from pipelines.models.model_file import SPLIT_FILE
from pipelines.models.session import Session
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun
from pipelines.review.uses import audited_images, read_answers
from pipelines.settings import settings
from pipelines.training import bundle
from pipelines.training.adversary import Opposition, announce
from pipelines.training.calibrate import calibrate, calibrate_by_folds
from pipelines.training.closed_form import HeldOut, fitted_by_folds, train_closed_form
from pipelines.training.deep import fit_deep, reconstruction_sheet
from pipelines.training.fit import Recipe
from pipelines.training.folder_remarks import remark_on
from pipelines.training.folds import choose_latents
from pipelines.training.model_card import write_card
from pipelines.training.need import digest_answers, taught_to
from pipelines.training.network import (
    build_network,
    build_representation,
    choose_standardise,
    training_device,
)
from pipelines.training.options import (
    check_network_options,
    find_likelihood_name,
    find_score_kind,
    find_task,
)
from pipelines.training.promotion import decide
from pipelines.training.registration import MadeBundle, TrainedModel, champion_of, train_once
from pipelines.training.weights import write_weights
from vaecore.bound import LatentVariableModel
from vaecore.networks import ClassPrior
from vaecore.representations import Features, Representation
from vaecore.tasks import colorizations, segmentations, unpaired_tasks

log = logging.getLogger(__name__)
CALIBRATION_WINDOWS = 30_000  # most windows of all calibration images together: they take most of the time
GUESSING = 0.55  # AUROC on synthetic defects; below it, the user gets a warning


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with all choices made and its images read, ready for training."""

    job: Job
    plan: Plan
    representation: Representation
    model: nn.Module
    data: TrainingData
    recipe: Recipe
    answered: frozenset[str] = frozenset()  # digests of images that answers have brought in, or kept out

    @property
    def network(self) -> LatentVariableModel:
        """The model as the bound sees it."""
        return self.model  # type: ignore[return-value]  # a Protocol that modules satisfy


def prepare(job: Job) -> Prepared:
    """Make the choices that the job leaves open, build the network with its initial weights, and read the images.

    Raises:
        KintsugiError: Wrong usage or bad input; the message has the next step.
    """
    task, found = find_task(job), survey(job)
    warn_of_dark(found)
    plan = make_plan(job, task, found)
    check_network_options(job, plan)
    taught, bad = taught_to(job)
    data = load_training_data(job, plan, taught, bad)
    _announce_images(job, plan, data)
    standardise = choose_standardise(job, plan, data)
    for line in plan.reasons:
        log.info("%s", line)
    _announce_pieces(job, data)
    representation = build_representation(job, plan, standardise=standardise)
    torch.manual_seed(job.train.seed)
    images = len(data.split["train"])
    folds = fitted_by_folds(data, job.train.seed, job.data.normal_changes)[1]
    latents = choose_latents(folds, representation.dims)
    model = build_network(job, plan, representation, classes=len(data.classes), latents=latents)
    if isinstance(model, ClassPrior):
        model.set_shares(torch.bincount(torch.tensor([data.labels[image] for image in data.split["train"]])))
    recipe = Recipe.of(job.train, plan.target, images)
    return Prepared(job, plan, representation, model, data, recipe, digest_answers(job, taught, bad))


def crop_training(job: Job) -> AnyTraining:
    """Return the training of an image-to-image model.

    Raises:
        JobError: The job does not suit its task.
    """
    if job.verb != "restore":
        raise JobError(f"{job.path}: the task {job.task} trains an anomaly model, not an image-to-image model")
    if job.task in segmentations():
        return SegmenterTraining(job)
    if job.task in unpaired_tasks():
        return UnpairedTraining(job)
    return ColorizerTraining(job) if job.task in colorizations() else RestorerTraining(job)


def train_model(
    job: Job | Path | str, *, overrides: Sequence[str] = (), why: str | None = None, fresh: bool = False
) -> TrainedModel:
    """Train, export, calibrate and register one model. Promote it if the job's rule says so.

    After an interruption, the same call continues from the last checkpoint.

    Args:
        job: A job, or the path of its TOML file.
        overrides: `key=value` pairs that replace keys of the file.
        why: Reason for the training, for the record.
        fresh: Start from the first step, discard checkpoints of an earlier run, and read every image again.

    Returns:
        The registered version, whether it became champion, and the figures behind the decision.

    Raises:
        KintsugiError: Wrong usage or bad input; the message has the next step.
    """
    job = job if isinstance(job, Job) else load_job(job, overrides)
    with keep_warnings(), reading_anew(wanted=fresh):
        if job.verb == "restore":
            return train_crops(crop_training(job), why, fresh=fresh)
        return _train_scorer(job, why, fresh=fresh)


def _train_scorer(job: Job, why: str | None, *, fresh: bool) -> TrainedModel:
    start, seen = time.perf_counter(), contents_of(job)
    prepared = prepare(job)
    if prepared.plan.experts is None:
        log.info(
            "likelihood %s, latents %d x %d x %d, %d steps of %d images",
            find_likelihood_name(job, prepared.plan), *prepared.network.latent_shape,
            prepared.recipe.steps, prepared.recipe.batch,
        )  # fmt: skip
        announce(Opposition.of(job.train), prepared.recipe.steps)

    def make(work: Path, folder: Path, run: TrackedRun) -> MadeBundle:
        return _make_bundle(prepared, work, folder, run, seen, start)

    return train_once(job, _work_key(prepared), prepared.data.digest, make, why=why, fresh=fresh)


def _make_bundle(
    prepared: Prepared, work: Path, folder: Path, run: TrackedRun, seen: frozenset[str], start: float
) -> MadeBundle:
    """Fit, freeze the scale, export, compare with torch, calibrate, and compare with the champion.

    Args:
        prepared: The job, its images and its network.
        work: Folder of checkpoints; an interrupted training continues from there.
        folder: Folder for the bundle; it does not exist yet.
        run: Run of the tracking server, for the record.
        seen: Contents of the folders before they were read.
        start: Time when the training began, in seconds of `time.perf_counter`.

    Raises:
        ModelError: The exported file does not agree with torch.
    """
    job, plan, data, representation = prepared.job, prepared.plan, prepared.data, prepared.representation
    device = training_device()
    run.params(job.flatten() | _chosen(prepared) | {"device": device})
    run.tags({"task": job.task, "data_digest": data.digest})
    examples = make_examples(data, plan.image_format, representation, _changes_of(job, plan))
    held_out, remarks, embeddings = None, list[str](), None
    if isinstance(representation, Features) and plan.experts is not None:
        kind = find_score_kind(job, plan)
        found = train_closed_form(
            examples, data, plan, representation, kind, seed=job.train.seed, calibrate=_whole_images(prepared),
            changes=job.data.normal_changes,
        )  # fmt: skip
        graph, held_out = found.in_graph(plan.image_format, representation, kind), found.held_out
        measured = found.figures()
        if plan.overlap is None:
            some = evenly_spaced(data.split["train"], bundle.GALLERY_IMAGES)
            embeddings = {data.files[index].relative: each for index, each in found.embed(examples, some).items()}
    else:
        fitted = fit_deep(
            job, plan, representation, prepared.model, examples, prepared.recipe, work=work, device=device,
            on_check=lambda step, figures: run.metrics(figures, step),
        )  # fmt: skip
        graph, measured = fitted.graph, fitted.figures
    if representation.drawable:
        run.image("reconstructions", reconstruction_sheet(graph.network, examples))

    metadata = bundle.describe(job, plan, data, graph, prepared.recipe.corruption)
    log.info("exporting to ONNX and comparing it with torch")
    file = bundle.write_model(folder, graph, metadata)
    parity = bundle.check_parity(file, graph, data.files_of("select"))
    session = Session(file, device=settings().device, threads=settings().workers)
    calibration = _calibrate(session, prepared, held_out)
    if held_out is not None:
        names = [data.files[index].relative for index in held_out.indices]
        remarks = remark_on(names, held_out.scores, held_out.summaries, calibration.default_false_alarms())
        for remark in remarks:
            log.warning("%s", remark)
    bundle.write_gallery(session, data.files_of("train"), embeddings)
    write_split(folder / SPLIT_FILE, data.sha256, data.split, seen, prepared.answered)
    bundle.write_job(folder, job)
    write_weights(file, graph)

    registry = Registry()
    champion = champion_of(registry, job.name)
    audited = audited_images(job.name, read_answers()) if job.review.judge else ()
    decision = decide(file, champion, data, job.promote, calibration.default_false_alarms(), audited)
    measured |= {"parity": parity, "seconds": time.perf_counter() - start}
    figures = {**measured, **decision.figures}
    shown = figures.get("challenger_synthetic_auroc", 1.0)
    if figures["images"] < FEWEST_SELECT:  # too few to mean anything; the folds have more images
        shown = max((value for name, value in measured.items() if name.startswith("synthetic_auroc")), default=1.0)
    if plan.target_name != "whole" and shown < GUESSING:
        log.warning(
            "this model separates damaged images from good ones hardly better than guessing (%.0f %% of pairs; "
            "guessing gives 50 %%): train on more images%s%s",
            100 * shown, "" if plan.experts else ", longer ('train.steps')",
            "" if plan.target.features else ", or on features",
        )  # fmt: skip
    run.text("card.md", write_card(folder, job, plan, data, metadata, calibration, decision, measured, remarks))
    run.metrics(figures, int(measured.get("steps", 0)))
    return MadeBundle(figures, decision)


def _announce_images(job: Job, plan: Plan, data: TrainingData) -> None:
    """Log the number and kind of the images, and refuse a false-alarm rate that needs more images."""
    split = {name: len(indices) for name, indices in data.split.items()}
    split["calibrate"] = count_calibration(job, plan, data)
    crossed, least = is_crossed(data.split), 1 / (split["calibrate"] + 1)
    rate = max(0.01, least) if job.calibrate.false_alarms is None else job.calibrate.false_alarms
    word, can, other = ("asked", "tell", "") if crossed else ("promised", "promise", "raise 'calibrate.fraction', ")
    asked = {"calibrate.false_alarms": rate, "schedule.false_discoveries": job.schedule.false_discoveries}
    problems = [
        f"{job.path}: '{key}' is {share:g}, but {split['calibrate']} calibration images can "
        f"{can} {promised(least)} at best: add good images, {other}or ask for {math.ceil(1e4 * least) / 1e4:g}"
        for key, share in asked.items()
        if share is not None and share < least
    ]
    if problems:
        raise JobError("\n".join(problems))
    colour = "grey" if plan.image_format.channels == 1 else "colour"
    what = f"{len(data.files)} {plan.image_format.bit_depth}-bit {colour} images"
    if crossed and split["calibrate"] < split["train"]:
        log.info(
            "%s: %d to train, %d of them to calibrate, %d in reserve",
            what, split["train"], split["calibrate"], split["select"],
        )  # fmt: skip
    elif crossed:
        log.info("%s: %d to train and to calibrate, %d in reserve", what, split["train"], split["select"])
    else:
        log.info(
            "%s: %d to train, %d to select, %d to calibrate", what, split["train"], split["select"], split["calibrate"]
        )
    if data.taught or data.left_out:
        log.info(
            "answers of people: %d more images to train, %d of the folder left out (review.train)",
            len(data.taught), len(data.left_out),
        )  # fmt: skip
    if data.classes:
        counts = np.bincount(data.labels, minlength=len(data.classes))
        each = [f"{name} {count:,}" for name, count in zip(data.classes, counts, strict=True)]
        log.info("%d classes: %s", len(each), named(each))
    log.info(
        "%s false-alarm rate %s (%d images can %s %s)", word, promised(rate), split["calibrate"], can, promised(least)
    )


def _announce_pieces(job: Job, data: TrainingData) -> None:
    """Log which images belong together, and warn if nearly identical images are in different parts."""
    group = job.data.group
    if group is not None:
        announce_pieces(data.pieces, data.split["calibrate"], data.split["train"], group)
    names, train = [file.relative for file in data.files], data.split["train"]
    held: Sequence[int] = [*data.split["calibrate"], *data.split["select"]]
    if is_crossed(data.split):  # each half is held out of the other, as folds are
        held, train = [*train[::2], *data.split["select"]], train[1::2]
    warn_of_crossing(lambda index: data.pixels[index], names, held, train, group=group)


def _chosen(prepared: Prepared) -> dict[str, Any]:
    """Return the choices that the job left open, for the parameters of the run."""
    plan = prepared.plan
    return {
        "chosen.target": plan.target_name,
        "chosen.size": plan.size,
        "chosen.windows": plan.overlap is not None,
        "chosen.stages": plan.stages,
        "chosen.strides": plan.strides,
        **({"chosen.layers": plan.layers} if plan.layers else {}),
        "chosen.latent_shape": prepared.network.latent_shape,
        "chosen.standardise": prepared.representation.standardises,
        **{
            f"chosen.{name}": getattr(prepared.recipe, name)
            for name in ("steps", "batch", "learning_rate", "corruption")
        },
    }


def _changes_of(job: Job, plan: Plan) -> Changes | None:
    """The job's normal changes, at the size that the network works at."""
    if not job.data.normal_changes:
        return None
    before = plan.median_size or plan.size
    return Changes(job.data.normal_changes, min(1.0, math.sqrt(math.prod(plan.size) / math.prod(before))))


def _calibrate(session: Session, prepared: Prepared, held_out: HeldOut | None) -> Calibration:
    """Calibrate with the images kept for it, or with all images as the folds scored them."""
    data, rate, changes = prepared.data, prepared.job.calibrate.false_alarms, prepared.job.data.normal_changes
    if held_out is None or not is_crossed(data.split):
        files, most = data.files_of("calibrate"), count_calibration(prepared.job, prepared.plan, data)
        return calibrate(session, evenly_spaced(files, most), rate, changes)
    return calibrate_by_folds(session, data, held_out, rate, changes)


def count_calibration(job: Job, plan: Plan, data: TrainingData) -> int:
    """Count the calibration images: all of them, or fewer for a model of windows, to save time.

    There are always enough for the requested rate, and for one percent.
    """
    there, asked = len(data.split["calibrate"]), [job.calibrate.false_alarms, job.schedule.false_discoveries]
    needed = max(ONE_PERCENT_NEEDS, *(math.ceil(1 / rate) for rate in asked if rate is not None), 0)
    return there if plan.windows is None else min(there, max(needed, CALIBRATION_WINDOWS // plan.windows))


def _whole_images(prepared: Prepared) -> list[int]:
    """Return the indices of the images that folds score as a whole, for a model of windows."""
    data, plan = prepared.data, prepared.plan
    if plan.overlap is None or not is_crossed(data.split):
        return []
    return evenly_spaced(data.split["calibrate"], count_calibration(prepared.job, plan, data))


def _work_key(prepared: Prepared) -> str:
    """Return a digest of everything that the weights depend on: a checkpoint of other work is never resumed."""
    job, plan, data, representation = prepared.job, prepared.plan, prepared.data, prepared.representation
    stamp = {
        "task": job.task,
        "model": job.model.model_dump_json(),
        "normal_changes": sorted(job.data.normal_changes),
        "recipe": asdict(prepared.recipe),
        "plan": [plan.target_name, plan.size, plan.stages, plan.strides, plan.overlap],
        "y": [getattr(representation, name, None) for name in ("smooth", "standardises", "recentres")],
        "backbone": representation.backbone.digest() if isinstance(representation, Features) else None,
        "classes": [data.classes, hashlib.sha256(repr(data.labels).encode()).hexdigest()],
        "format": [plan.image_format.channels, plan.image_format.bit_depth],
        "train_images": [data.sha256[index] for index in data.split["train"]],
        "select_images": [data.sha256[index] for index in data.split["select"]],  # they choose the best weights
        "kintsugi": software_version(),
    }
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
