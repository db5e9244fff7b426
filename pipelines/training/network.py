"""From a job and a plan to the parts that are trained: what y is, and a network with its likelihood."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.base.subsample import evenly_spaced
from pipelines.data.plan import Plan, backbone_fits
from pipelines.data.training_images import TrainingData
from pipelines.jobfile.job import Job
from pipelines.settings import settings
from pipelines.training.options import (
    find_likelihood_name,
    find_prior,
    may_standardise,
    network_options,
)
from vaecore.experts import ClosedFormLinearVAE
from vaecore.likelihoods import (
    IMAGE_LIKELIHOODS,
    BernoulliLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
)
from vaecore.networks import ClassPrior, TwoLevelVAE
from vaecore.priors import COMPONENTS, Circumstances
from vaecore.representations import Features, Pixels, Representation
from vaecore.representations.backbones import Backbone, Maps, find_licence
from vaecore.representations.weights import PACKAGED

log = logging.getLogger(__name__)
EXPOSURE_IMAGES = 512
EXPOSURE_VARIES = 1 / 3
"""Share of the variance that is whole images' brightness: above, exposure differs more than what is shown."""


def training_device() -> str:
    """Where networks are trained: "cuda" where there is a GPU that the settings allow, else "cpu"."""
    return "cuda" if torch.cuda.is_available() and settings().device != "cpu" else "cpu"


def build_likelihood(job: Job, plan: Plan) -> Likelihood:
    """p(y | z)."""
    name = find_likelihood_name(job, plan)
    kind = IMAGE_LIKELIHOODS[name]
    if kind is DiscretisedLogisticLikelihood:
        return DiscretisedLogisticLikelihood(levels=plan.image_format.maximum + 1)
    return kind(plan.target.least_scale) if "least_scale" in inspect.signature(kind).parameters else kind()


def build_representation(job: Job, plan: Plan, *, standardise: bool, recentre: bool | None = None) -> Representation:
    """What y is.

    Args:
        job: The job.
        plan: What was chosen.
        standardise: Give every image the same brightness and contrast.
        recentre: Take the mean over the image off features; None: for a model in closed form.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or strides.
    """
    if plan.target.features:
        return build_features(job, plan, standardise=standardise, recentre=recentre)
    likelihood = IMAGE_LIKELIHOODS[find_likelihood_name(job, plan)]
    return Pixels(
        channels=plan.image_format.channels,
        size=plan.size,
        levels=_levels(likelihood, plan),
        standardise=standardise,
    )


def _levels(likelihood: type[Likelihood], plan: Plan) -> int | None:
    """The largest level that y knows: images that are black or white have one."""
    if not likelihood.discrete:
        return None
    return 1 if likelihood is BernoulliLikelihood else plan.image_format.maximum


def build_features(job: Job, plan: Plan, *, standardise: bool, recentre: bool | None = None) -> Features:
    """Features of the job's backbone; the arguments are those of `build_representation`.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or strides.
    """
    with backbone_fits(job):
        return Features(
            build_backbone(job, plan.maps, plan.size),
            input_size=plan.size,
            whole=plan.target.whole,
            standardise=standardise,
            recentre=plan.experts is not None if recentre is None else recentre,
        )


def build_backbone(job: Job, maps: Maps, size: tuple[int, int]) -> Backbone:
    """The job's frozen network, for images of a size.

    Raises:
        JobError: It is unknown, or does not fit its weights, maps or size.
    """
    with backbone_fits(job):
        return Backbone(
            job.model.backbone,
            strides=maps.strides,
            layers=maps.layers,
            weights=job.model.backbone_weights,
            size=size,
        )


def choose_standardise(job: Job, plan: Plan, data: TrainingData) -> bool:
    """Choose whether images get one brightness and contrast: asked for, or because exposure is what differs most."""
    if job.model.standardise is not None or not may_standardise(job, plan):
        return bool(job.model.standardise)
    share = measure_exposure(data)
    varies = share >= EXPOSURE_VARIES
    one = "image" if plan.overlap is None else "window"
    what = f"every {one} gets the same brightness and contrast" if varies else "brightness and contrast are kept"
    log.info("%s: the brightness of whole %ss is %.0f %% of the variance", what, one, 100 * share)
    return varies


def measure_exposure(data: TrainingData) -> float:
    """Return the share of the train split's variance of pixels that is the brightness of whole images, or windows."""
    some = evenly_spaced(data.rows_of("train"), EXPOSURE_IMAGES)
    facts = np.array(
        [(pixels.mean(), pixels.var()) for pixels in (np.asarray(data.shown[i], np.float64) for i in some)]
    )
    between, within = facts[:, 0].var(), facts[:, 1].mean()
    return float(between / max(between + within, 1e-12))


def build_network(
    job: Job,
    plan: Plan,
    representation: Representation,
    *,
    classes: int = 0,
    latents: int = 1,
    trained: bool = False,
) -> nn.Module:
    """The network, with the options that the job sets; the rest are the network's own.

    Args:
        job: The job.
        plan: Its choices.
        representation: What y is.
        classes: Of images, where they have any.
        latents: Of a linear VAE.
        trained: Weights of a trained model go into it.
    """
    if plan.experts is not None:
        return ClosedFormLinearVAE(channels=representation.channels, size=representation.size, latents=latents)
    network = plan.target.network(
        channels=representation.channels,
        size=representation.size,
        likelihood=build_likelihood(job, plan),
        stages=plan.stages,
        **{**_target_options(job, plan), **network_options(job)},
    )
    if job.model.levels == 2:
        return TwoLevelVAE(network)
    if classes:
        return ClassPrior(network, classes)
    kind, circumstances = find_prior(job), gather_circumstances(job, representation)
    wrap = kind.exported if trained and kind.exported is not None else kind.wrap
    return wrap(network, circumstances)


def _target_options(job: Job, plan: Plan) -> Mapping[str, Any]:
    """The target's options of its network, which belong to a latent vector."""
    return {} if job.model.latent == "grid" else plan.target.options


def gather_circumstances(job: Job, representation: Representation) -> Circumstances:
    """Gather what its prior may need to know."""
    shape = (representation.channels, *representation.size)
    return Circumstances(job.model.components or COMPONENTS, shape, job.train.seed)


def prior_words(job: Job, classes: int) -> str:
    """What p(z) is, for people."""
    if job.model.levels == 2:
        return "two levels, the upper one standard normal"
    if classes:
        return f"a normal distribution for each of {classes} classes"
    return find_prior(job).summary.format(components=job.model.components or COMPONENTS)


def describe_licence(job: Job) -> str | None:
    """The licence of the backbone's weights, which are in the model; None where nobody knows it."""
    if is_backbone_packaged(job):
        return "backbone weights: Apache-2.0"
    licence = find_licence(job.model.backbone)
    return licence and f"backbone weights: {licence}, if they are those that timm lists as {job.model.backbone}"


def is_backbone_packaged(job: Job) -> bool:
    """Return whether the weights of the job's frozen network come from a package that belongs to this software."""
    return job.model.backbone in PACKAGED and job.model.backbone_weights is None
