"""From a job and a plan to the parts that are trained: what y is, and a network with its likelihood."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from pipelines.choose import wanted_pooling
from pipelines.data import TrainingData
from pipelines.errors import JobError
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.probe import smoothing_helps
from pipelines.settings import settings
from vaecore.backbones import EMBEDDED, Backbone
from vaecore.likelihoods import IMAGE_LIKELIHOODS, DiscretisedLogisticLikelihood, Likelihood
from vaecore.representations import Features, Pixels, Representation
from vaecore.tasks import Task, all_tasks


def find_task(job: Job) -> Task:
    """The job's task.

    Raises:
        JobError: There is no such task.
    """
    tasks = all_tasks()
    job.check_task(tasks)
    return tasks[job.task]


def training_device() -> str:
    """Where networks are trained: "cuda" where there is a GPU that the settings allow, else "cpu"."""
    return "cuda" if torch.cuda.is_available() and settings().device != "cpu" else "cpu"


def build_likelihood(job: Job, plan: Plan) -> Likelihood:
    """p(y | z)."""
    name = likelihood_name(job, plan)
    kind = IMAGE_LIKELIHOODS[name]
    if kind is DiscretisedLogisticLikelihood:
        return DiscretisedLogisticLikelihood(levels=plan.image_format.maximum + 1)
    return kind(plan.target.least_scale) if "least_scale" in inspect.signature(kind).parameters else kind()


def likelihood_name(job: Job, plan: Plan) -> str:
    """The job's likelihood, or the first that the target knows.

    Raises:
        JobError: The target does not know it.
    """
    name = job.model.likelihood or plan.target.likelihoods[0]
    if name not in plan.target.likelihoods:
        msg = (
            f"{job.path}: 'model.likelihood' is '{name}'; the task {job.task} on {plan.target_name} knows "
            f"{', '.join(plan.target.likelihoods)}"
        )
        raise JobError(msg)
    return name


def build_representation(job: Job, plan: Plan, data: TrainingData) -> Representation:
    """What y is; whether features are averaged is tried on the images unless the job says.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or strides.
    """
    if plan.target_name == "pixels":
        discrete = IMAGE_LIKELIHOODS[likelihood_name(job, plan)].discrete
        levels = plan.image_format.maximum if discrete else None
        return Pixels(channels=plan.image_format.channels, size=plan.size, levels=levels)
    try:
        backbone = Backbone(job.model.backbone, strides=plan.strides, weights=job.model.backbone_weights)
        smooth = job.model.smooth
        if smooth is None:
            smooth = smoothing_helps(backbone, plan, data)
        return Features(backbone, input_size=plan.size, smooth=smooth, weights=job.model.stride_weights)
    except (ValueError, OSError) as error:
        msg = f"{job.path}: 'model.backbone' {job.model.backbone}: {error}"
        raise JobError(msg) from None


def check_network_options(job: Job, plan: Plan) -> None:
    """Refuse, before images are read, what the network or the likelihood cannot be.

    Raises:
        JobError: The network has no such option, the target no such likelihood or score, or the pooling no such value.
    """
    likelihood_name(job, plan)
    wanted_pooling(job.model)
    if plan.target_name != "pixels" and job.model.score == "complexity":
        msg = (
            f"{job.path}: 'model.score' is 'complexity', which needs 'model.target' pixels: features have no complexity"
        )
        raise JobError(msg)
    if unknown := sorted(set(_network_options(job)) - set(inspect.signature(plan.target.network).parameters)):
        key = {"latent_grid": "latent"}.get(unknown[0], unknown[0])
        msg = f"{job.path}: 'model.{key}' is no option of the network on {plan.target_name}; leave it out"
        raise JobError(msg)


def build_network(job: Job, plan: Plan, representation: Representation) -> nn.Module:
    """The network, with the options that the job sets; the rest are the network's own."""
    return plan.target.network(
        channels=representation.channels,
        size=representation.size,
        likelihood=build_likelihood(job, plan),
        stages=plan.stages,
        **_network_options(job),
    )


def _network_options(job: Job) -> dict[str, Any]:
    asked = {
        "latent_channels": job.model.latent_channels,
        "width": job.model.width,
        "blocks": job.model.blocks,
        "latent_grid": None if job.model.latent is None else job.model.latent == "grid",
    }
    return {name: value for name, value in asked.items() if value is not None}


def uses_embedded_backbone(job: Job, plan: Plan) -> bool:
    """Whether the weights that ship are in the model, whose licence then belongs on its card."""
    return plan.target_name == "features" and job.model.backbone == EMBEDDED and job.model.backbone_weights is None
