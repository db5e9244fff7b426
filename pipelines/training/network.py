"""From a job and a plan to the parts that are trained: what y is, and a network with its likelihood."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.base.subsample import evenly_spaced
from pipelines.data.plan import Plan
from pipelines.data.training_images import TrainingData
from pipelines.errors import JobError
from pipelines.jobfile.job import Job
from pipelines.settings import settings
from pipelines.training.score_choice import wanted_pooling
from vaecore.graphs.scoring import ScoreKind
from vaecore.likelihoods import (
    IMAGE_LIKELIHOODS,
    BernoulliLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
)
from vaecore.networks import ClassPrior, TwoLevelVAE
from vaecore.priors import COMPONENTS, Circumstances, PriorKind, all_priors
from vaecore.representations import Features, Pixels, Representation, Smooth
from vaecore.representations.backbones import EMBEDDED, Backbone
from vaecore.tasks import Task, scoring_tasks

log = logging.getLogger(__name__)
OF_RESTORATIONS = frozenset(
    {"data.labels", "model.network", "model.scale", "model.damage", "model.level"}
    | {"train.minutes", "train.crop", "train.start"}
)
EXPOSURE_IMAGES = 512
EXPOSURE_VARIES = 1 / 3
"""Share of the variance that is whole images' brightness: above, exposure differs more than what is shown."""


def find_task(job: Job) -> Task:
    """The job's task.

    Raises:
        JobError: It mends images, and gives no scores.
    """
    tasks = scoring_tasks()
    if job.task not in tasks:
        raise JobError(f"{job.path}: the task {job.task} mends images: this needs one of {', '.join(tasks)}")
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
    """The job's likelihood, or the first that the target knows."""
    return job.model.likelihood or plan.target.likelihoods[0]


def build_representation(job: Job, plan: Plan, *, standardise: bool) -> Representation:
    """What y is.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or strides.
    """
    if plan.target.features:
        return build_features(job, plan, standardise=standardise)
    likelihood = IMAGE_LIKELIHOODS[likelihood_name(job, plan)]
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


def build_features(job: Job, plan: Plan, *, standardise: bool, smooth: Smooth | None = None) -> Features:
    """Features of the job's backbone; `smooth` takes the place of the job's choice.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or strides.
    """
    target = plan.target
    with _backbone_fits(job):
        return Features(
            build_backbone(job, plan.strides),
            input_size=plan.size,
            smooth=smoothing(job, plan) if smooth is None else smooth,
            whiten=target.whiten,
            whole=target.whole,
            standardise=standardise,
            weights=job.model.stride_weights,
        )


def build_backbone(job: Job, strides: Sequence[int]) -> Backbone:
    """The job's frozen network.

    Raises:
        JobError: It is unknown, or does not fit its weights or strides.
    """
    with _backbone_fits(job):
        return Backbone(job.model.backbone, strides=strides, weights=job.model.backbone_weights)


@contextmanager
def _backbone_fits(job: Job) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise JobError(f"{job.path}: 'model.backbone' {job.model.backbone}: {error}") from None


def smoothing(job: Job, plan: Plan) -> Smooth:
    """Whether features are averaged; "both" only where the anomaly map then is of those that are not."""
    usual = True if plan.target.smooth == "both" and not has_own_map(job, plan) else plan.target.smooth
    return usual if job.model.smooth is None else job.model.smooth


def has_own_map(job: Job, plan: Plan) -> bool:
    """Whether the anomaly map is made of features under a tempered scale; elsewhere it is the bound's own."""
    return plan.target.features and likelihood_name(job, plan) == "gaussian" and score_kind(job) == "elbo"


def standardises(job: Job, plan: Plan, data: TrainingData) -> bool:
    """Whether images get one brightness and contrast: asked for, or because exposure is what differs most."""
    if job.model.standardise is not None or not _can_standardise(job, plan):
        return bool(job.model.standardise)
    share = exposure_share(data)
    varies = share >= EXPOSURE_VARIES
    what = "every image gets the same brightness and contrast" if varies else "brightness and contrast are kept"
    log.info("%s: the brightness of whole images is %.0f %% of the variance", what, 100 * share)
    return varies


def _can_standardise(job: Job, plan: Plan) -> bool:
    """A code length and a discrete likelihood are of levels, which standardised images have no more."""
    continuous = not IMAGE_LIKELIHOODS[likelihood_name(job, plan)].discrete
    return plan.target.features or (continuous and job.model.score != "complexity")


def exposure_share(data: TrainingData) -> float:
    """Share of the pixels' variance over the train split that the images' mean brightness makes up."""
    some = evenly_spaced(data.split["train"], EXPOSURE_IMAGES)
    facts = np.array(
        [(pixels.mean(), pixels.var()) for pixels in (np.asarray(data.pixels[i], np.float64) for i in some)]
    )
    between, within = facts[:, 0].var(), facts[:, 1].mean()
    return float(between / max(between + within, 1e-12))


def check_network_options(job: Job, plan: Plan) -> None:
    """Refuse, before images are read, what the network or the likelihood cannot be.

    Raises:
        JobError: The network has no such option, the target no such likelihood or score, or the pooling no such value;
            the message has a line for each.
    """
    problems = list(_problems(job, plan))
    if problems:
        raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))


def _problems(job: Job, plan: Plan) -> Iterator[str]:
    asked, target = job.model, plan.target
    of_others = [key for key in job.set_options("data", "model", "train") if key in OF_RESTORATIONS]
    yield from (f"'{key}' is of models that mend or label images, not of {job.task}; leave it out" for key in of_others)
    try:
        wanted_pooling(asked)
    except JobError as error:
        yield str(error)
    if target.features and asked.score == "complexity":
        yield "'model.score' is 'complexity', which needs 'model.target' pixels: features have no complexity"
    yield from (f"'model.{key}' has no meaning {why}; leave it out" for key, why in _unused(job, plan))
    if asked.score == "ratio" and asked.levels != 2:
        yield "'model.score' is 'ratio', between two levels of latents: it needs 'model.levels' = 2"
    yield from _problems_of_the_objective(job, plan)
    yield from _problems_of_classes(job, plan)
    yield from _problems_of_the_adversary(job, plan)
    if asked.levels == 2 and target.window is not None:
        yield f"'model.levels' is 2, but {plan.target_name} are trained on windows and have no upper level"
    for option in sorted(set(_network_options(job)) - set(inspect.signature(target.network).parameters)):
        key = {"latent_grid": "latent"}.get(option, option)
        yield f"'model.{key}' is no option of the network on {plan.target_name}; leave it out"
    name = likelihood_name(job, plan)
    if name not in target.likelihoods:
        knows = f"the task {job.task} on {plan.target_name} knows {', '.join(target.likelihoods)}"
        yield f"'model.likelihood' is '{name}'; {knows}"
        return  # what depends on it is not known
    if asked.standardise and not _can_standardise(job, plan):
        yield "'model.standardise' does not go with levels: a discrete likelihood, or score 'complexity'"
    if target.features and asked.smooth == "both" and (target.whiten or not has_own_map(job, plan)):
        yield (
            "'model.smooth' is 'both', for features that are not whitened, with likelihood 'gaussian' and score "
            "'elbo'; set true or false"
        )


def _problems_of_the_objective(job: Job, plan: Plan) -> Iterator[str]:
    """Of the prior, and of what training minimises."""
    prior, kind, table = job.model.prior, prior_of(job), job.train
    if prior != "standard" and job.model.levels == 2:
        yield "'model.prior' is of one level of latents; where 'model.levels' is 2, the upper is the lower one's prior"
    if job.model.components is not None and not kind.components:
        yield f"'model.components' has no meaning where 'model.prior' is {prior}; leave it out"
    weighted = {"beta": table.beta != 1, "free_bits": table.free_bits > 0}
    if not kind.density:
        if "iwae" in (job.model.score, table.objective):
            yield f"an importance-weighted bound needs a prior, and 'model.prior' is {prior}"
        weighted["objective"] = table.objective == "total_correlation"
        why = "without a prior; leave it out"
        yield from (f"'train.{key}' has no meaning {why}" for key, is_set in weighted.items() if is_set)
    elif table.objective == "iwae":
        weighted["corruption"] = table.corruption not in (None, "none")
        why = "for the importance-weighted bound; leave it out"
        yield from (f"'train.{key}' has no meaning {why}" for key, is_set in weighted.items() if is_set)
        if likelihood_name(job, plan) == "shared_gaussian":
            yield "'train.objective' is 'iwae', under which the scale of shared_gaussian has no closed form"
    elif table.objective == "total_correlation" and table.free_bits > 0:
        yield "'train.free_bits' has no meaning where 'train.objective' is total_correlation; leave it out"


def _problems_of_classes(job: Job, plan: Plan) -> Iterator[str]:
    asked, table = job.model, job.train
    if asked.classes is None:
        if table.label_weight is not None:
            yield "'train.label_weight' has no meaning without 'model.classes'; leave it out"
        return
    if asked.classes != "folders":
        yield f"'model.classes' is of labelled pixels; for {job.task} it is \"folders\", each sub-folder being a class"
    if asked.prior != "standard" or asked.levels == 2:
        key = "levels" if asked.levels == 2 else "prior"
        yield f"'model.classes' gives each class a prior of its own: leave 'model.{key}' out"
    if plan.target.window is not None:
        yield f"'model.classes' is of whole images, and {plan.target_name} are trained on windows: set 'model.target'"
    if table.objective == "iwae" and table.label_weight:
        yield "'train.label_weight' has no meaning where 'train.objective' is iwae; leave it out"


def _problems_of_the_adversary(job: Job, plan: Plan) -> Iterator[str]:
    """Of a VAE-GAN."""
    table = job.train
    if table.adversarial is None:
        yield from adversarial_problems(job)
        return
    if plan.target.features:
        yield f"'train.adversarial' needs 'model.target' pixels: nobody looks at {plan.target_name}"
    if job.model.prior != "standard" or job.model.levels == 2 or job.model.classes is not None:
        yield "'train.adversarial' needs the standard prior: leave 'model.levels', 'model.prior', 'model.classes' out"
    if table.objective == "iwae":
        yield "'train.adversarial' has no meaning where 'train.objective' is iwae; leave one out"
    if likelihood_name(job, plan) == "bernoulli":
        yield "'train.adversarial' has no meaning for black-and-white y: choose another 'model.likelihood'"
    if table.patience is not None:
        yield "'train.patience' has no meaning with 'train.adversarial', which costs some of the bound; leave it out"


def adversarial_problems(job: Job) -> Iterator[str]:
    """A kind of loss for nothing."""
    if job.train.adversarial is None and "train.adversarial_loss" in job.set_options("train"):
        yield "'train.adversarial_loss' is set, and there is no 'train.adversarial': give its weight, such as 1"


def _unused(job: Job, plan: Plan) -> Iterator[tuple[str, str]]:
    """Each option that says something which nothing would look at, and why."""
    asked = {key.removeprefix("model.") for key in job.set_options("model")}
    of_features = ("backbone", "backbone_weights", "strides", "stride_weights", "smooth")
    if not plan.target.features:
        yield from ((key, f"where 'model.target' is {plan.target_name}") for key in of_features if key in asked)
    of_places = ("smooth", "stages", "pooling", "aligned")
    if plan.target.whole:
        why = f"where 'model.target' is {plan.target_name}: y is a single place"
        yield from ((key, why) for key in of_places if key in asked)
    if job.model.score in ("complexity", "iwae"):
        why = f"where 'model.score' is '{job.model.score}': it is of the image as a whole"
        yield from ((key, why) for key in ("pooling", "aligned") if key in asked)


def build_network(
    job: Job, plan: Plan, representation: Representation, *, classes: int = 0, trained: bool = False
) -> nn.Module:
    """The network, with the options that the job sets; the rest are the network's own.

    Args:
        job: The job.
        plan: Its choices.
        representation: What y is.
        classes: Of images, where they have any.
        trained: Weights of a trained model go into it.
    """
    network = plan.target.network(
        channels=representation.channels,
        size=representation.size,
        likelihood=build_likelihood(job, plan),
        stages=plan.stages,
        **{**_usual_options(job, plan), **_network_options(job)},
    )
    if job.model.levels == 2:
        return TwoLevelVAE(network)
    if classes:
        return ClassPrior(network, classes)
    kind, circumstances = prior_of(job), circumstances_of(job, representation)
    wrap = kind.exported if trained and kind.exported is not None else kind.wrap
    return wrap(network, circumstances)


def prior_of(job: Job) -> PriorKind:
    """The job's kind of prior."""
    return all_priors()[job.model.prior]


def circumstances_of(job: Job, representation: Representation) -> Circumstances:
    """What its prior may need to know."""
    shape = (representation.channels, *representation.size)
    return Circumstances(job.model.components or COMPONENTS, shape, job.train.seed)


def prior_words(job: Job, classes: int) -> str:
    """What p(z) is, for people."""
    if job.model.levels == 2:
        return "two levels, the upper one standard normal"
    if classes:
        return f"a normal distribution for each of {classes} classes"
    return prior_of(job).summary.format(components=job.model.components or COMPONENTS)


def score_kind(job: Job) -> ScoreKind:
    """What the score is made of, apart from the complexity, which is learned after training."""
    return "elbo" if job.model.score == "complexity" else job.model.score


def _usual_options(job: Job, plan: Plan) -> Mapping[str, Any]:
    """The target's options of its network, which belong to a latent vector."""
    return {} if job.model.latent == "grid" else plan.target.options


def _network_options(job: Job) -> dict[str, Any]:
    asked = {
        "latent_channels": job.model.latent_channels,
        "width": job.model.width,
        "blocks": job.model.blocks,
        "dropout": job.model.dropout or None,
        "latent_grid": None if job.model.latent is None else job.model.latent == "grid",
    }
    return {name: value for name, value in asked.items() if value is not None}


def uses_embedded_backbone(job: Job, plan: Plan) -> bool:
    """Whether the weights that ship are in the model, whose licence then belongs on its card."""
    return plan.target.features and names_embedded_backbone(job)


def names_embedded_backbone(job: Job) -> bool:
    """Whether the job's frozen network is the one whose weights ship."""
    return job.model.backbone == EMBEDDED and job.model.backbone_weights is None
