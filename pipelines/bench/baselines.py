"""The baselines that run in our own environment: memories of features, and autoencoders."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from pipelines.base.files import write_json
from pipelines.bench.autoencoder import AutoencoderScorer, Loss, load_autoencoder, save_autoencoder, train_autoencoder
from pipelines.bench.measure import Indices, Material, Scorer, read_material, score_images
from pipelines.bench.memory import NearestNeighbour, rows_of
from pipelines.bench.peak import peak_memory
from pipelines.bench.question import Question
from pipelines.data.examples import Examples, make_examples
from pipelines.data.plan import Plan
from pipelines.jobfile.job import Job
from pipelines.training.fit import Recipe
from pipelines.training.network import build_backbone, build_representation, choose_standardise, training_device
from vaecore.representations import Representation
from vaecore.representations.backbones import Backbone, Maps

EXTRACT_BATCH = 8

Fit = Callable[[Indices], Scorer]


def measure_memory(question: Question) -> dict[str, Any]:
    """Nearest neighbours on the software's own features."""
    material, device = read_material(question.job), training_device()
    train = material.data.split["train"]
    start = time.perf_counter()
    fit = _nearest_neighbour(material, device)
    scorer = fit(train)
    seconds = time.perf_counter() - start
    folds = material.folds()
    held_out = ((fit(rest), fold) for rest, fold in folds) if folds else [(scorer, material.data.split["calibrate"])]
    return {
        **score_images(question.test, material, scorer, device, held_out),
        "train_seconds": seconds,
        **_facts(material, device, "no coreset, highest place"),
    }


def _nearest_neighbour(material: Material, device: str) -> Fit:
    representation, examples = _representation(material)

    def fit(indices: Indices) -> Scorer:
        parts = torch.tensor(indices).split(EXTRACT_BATCH)
        bank = torch.cat([rows_of(examples.batch(part.numpy())) for part in parts])
        return NearestNeighbour(representation.to(device), bank.to(device))

    return fit


def backbone_of(job: Job, plan: Plan, strides: tuple[int, ...] | None) -> Backbone:
    """The job's backbone, at other strides where they are given."""
    return build_backbone(job, Maps(strides) if strides else plan.maps, plan.size)


def measure_autoencoder(question: Question) -> dict[str, Any]:
    """Train an autoencoder, unless it was for the other half of the test images, and score with it."""
    material, device = read_material(question.job), training_device()
    weights, kept = question.work / "autoencoder.safetensors", question.work / "trained.json"
    recipe = Recipe.of(material.job.train, material.plan.target, len(material.data.split["train"]))
    loss: Loss = "ssim" if question.method.rule == "ssim" else "l2"
    if not kept.is_file():
        start = time.perf_counter()
        _, examples = _representation(material)
        model = train_autoencoder(examples, recipe, loss, device)
        facts = {"train_seconds": time.perf_counter() - start, "peak_mib": peak_memory()}
        save_autoencoder(weights, model)
        write_json(kept, facts)
    trained = json.loads(kept.read_text(encoding="utf-8"))
    model = load_autoencoder(weights, material.plan.image_format.channels, material.plan.size, device)
    scorer = AutoencoderScorer(model, loss)
    held_out = [(scorer, material.data.split["calibrate"])]
    scored = score_images(question.test, material, scorer, device, held_out)
    return {
        **scored,
        "peak_mib": max(scored["peak_mib"], trained["peak_mib"]),
        "train_seconds": trained["train_seconds"],
        **_facts(material, device, f"{recipe.steps} steps of {recipe.batch} images, worst pixel"),
    }


def _representation(material: Material) -> tuple[Representation, Examples]:
    """What the software's own network is given: y, and that of every image."""
    standardise = choose_standardise(material.job, material.plan, material.data)
    representation = build_representation(material.job, material.plan, standardise=standardise, recentre=False)
    return representation, make_examples(material.data, material.plan.image_format, representation)


def _facts(material: Material, device: str, note: str) -> dict[str, Any]:
    return {**material.facts, "device": device, "note": note}
