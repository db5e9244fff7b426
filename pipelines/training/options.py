"""What a job may ask of a model that scores, and what its options mean."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pipelines.data.plan import Plan, deep_options
from pipelines.errors import JobError
from pipelines.jobfile.job import Job
from vaecore.experts import EXPERTS
from vaecore.graphs.scoring import ScoreKind
from vaecore.likelihoods import IMAGE_LIKELIHOODS
from vaecore.priors import PriorKind, all_priors
from vaecore.tasks import Task, scoring_tasks

OF_RESTORATIONS = frozenset(
    {"data.labels", "model.network", "model.scale", "model.damage", "model.level"}
    | {"train.minutes", "train.crop", "train.start"}
)


def find_task(job: Job) -> Task:
    """The job's task.

    Raises:
        JobError: It mends images, and gives no scores.
    """
    tasks = scoring_tasks()
    if job.task not in tasks:
        raise JobError(f"{job.path}: the task {job.task} restores images: this needs one of {', '.join(tasks)}")
    return tasks[job.task]


def find_likelihood_name(job: Job, plan: Plan) -> str:
    """Return the job's likelihood, or the first that the target knows."""
    return job.model.likelihood or plan.target.likelihoods[0]


def may_standardise(job: Job, plan: Plan) -> bool:
    """Return whether images may get one brightness and contrast.

    A code length and a discrete likelihood are of levels, which standardised images have no more.
    """
    continuous = not IMAGE_LIKELIHOODS[find_likelihood_name(job, plan)].discrete
    return plan.target.features or (continuous and job.model.score != "complexity")


def check_network_options(job: Job, plan: Plan) -> None:
    """Refuse, before images are read, what the network or the likelihood cannot be.

    Raises:
        JobError: The network has no such option, the target no such likelihood or score, or the pooling no such value;
            the message has a line for each.
    """
    problems = list(_find_problems(job, plan))
    if problems:
        raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))


def _find_problems(job: Job, plan: Plan) -> Iterator[str]:
    asked, target = job.model, plan.target
    of_others = [key for key in job.set_options("data", "model", "train") if key in OF_RESTORATIONS]
    yield from (f"'{key}' is of models that mend or label images, not of {job.task}; leave it out" for key in of_others)
    yield from _find_expert_problems(job, plan)
    yield from _find_window_problems(job, plan)
    if job.data.normal_changes and (plan.experts is None or plan.overlap is not None):
        yield "'data.normal_changes' are of models in closed form that look at whole images: leave it out"
    if target.features and asked.score == "complexity":
        yield "'model.score' is 'complexity', which needs 'model.target' pixels: features have no complexity"
    yield from (f"'model.{key}' has no meaning {why}; leave it out" for key, why in _find_unused(job, plan))
    if asked.score == "ratio" and asked.levels != 2:
        yield "'model.score' is 'ratio', between two levels of latents: it needs 'model.levels' = 2"
    yield from _find_objective_problems(job, plan)
    yield from _find_class_problems(job)
    yield from _find_adversary_problems(job, plan)
    for option in sorted(set(network_options(job)) - set(inspect.signature(target.network).parameters)):
        key = {"latent_grid": "latent"}.get(option, option)
        yield f"'model.{key}' is no option of the network on {plan.target_name}; leave it out"
    name = find_likelihood_name(job, plan)
    if name not in target.likelihoods:
        knows = f"the task {job.task} on {plan.target_name} knows {', '.join(target.likelihoods)}"
        yield f"'model.likelihood' is '{name}'; {knows}"
        return  # what depends on it is not known
    if asked.standardise and not may_standardise(job, plan):
        yield "'model.standardise' does not go with levels: a discrete likelihood, or score 'complexity'"


def _find_expert_problems(job: Job, plan: Plan) -> Iterator[str]:
    """Of what is fitted in closed form."""
    asked, table = job.model.experts or (), job.model
    if unknown := [name for name in asked if name not in EXPERTS]:
        yield f"'model.experts' names '{unknown[0]}'; there are: {', '.join(EXPERTS)}"
    if len(set(asked)) < len(asked):
        yield "'model.experts' names an expert twice"
    if plan.target.experts is None and (table.vae == "linear" or table.experts is not None):
        key = "vae" if table.vae == "linear" else "experts"
        yield f"'model.{key}' is of features by place, not of {plan.target_name}; leave it out"
    elif table.vae == "deep" and table.experts is not None:
        yield "'model.experts' are beside a linear VAE: leave them out, or 'model.vae'"
    elif plan.experts is None and job.calibrate.kind == "cross":
        yield "'calibrate.kind' is \"cross\", by folds: that is of models in closed form, not of a deep VAE"
    elif plan.experts is not None:
        why = "is only for a deep VAE: set 'model.vae' = \"deep\", or leave it out"
        yield from (f"'{key}' {why}" for key in deep_options(job))


def _find_window_problems(job: Job, plan: Plan) -> Iterator[str]:
    if job.model.windows and plan.experts is None:
        yield "'model.windows' are of a linear VAE on features, in closed form: leave it out, or what asks for another"


def _find_objective_problems(job: Job, plan: Plan) -> Iterator[str]:
    """Of the prior, and of what training minimises."""
    prior, kind, table = job.model.prior, find_prior(job), job.train
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
        if find_likelihood_name(job, plan) == "shared_gaussian":
            yield "'train.objective' is 'iwae', under which the scale of shared_gaussian has no closed form"
    elif table.objective == "total_correlation" and table.free_bits > 0:
        yield "'train.free_bits' has no meaning where 'train.objective' is total_correlation; leave it out"


def _find_class_problems(job: Job) -> Iterator[str]:
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
    if table.objective == "iwae" and table.label_weight:
        yield "'train.label_weight' has no meaning where 'train.objective' is iwae; leave it out"


def _find_adversary_problems(job: Job, plan: Plan) -> Iterator[str]:
    """Of a VAE-GAN."""
    table = job.train
    if table.adversarial is None:
        yield from find_adversarial_problems(job)
        return
    if plan.target.features:
        yield f"'train.adversarial' needs 'model.target' pixels: nobody looks at {plan.target_name}"
    if job.model.prior != "standard" or job.model.levels == 2 or job.model.classes is not None:
        yield "'train.adversarial' needs the standard prior: leave 'model.levels', 'model.prior', 'model.classes' out"
    if table.objective == "iwae":
        yield "'train.adversarial' has no meaning where 'train.objective' is iwae; leave one out"
    if find_likelihood_name(job, plan) == "bernoulli":
        yield "'train.adversarial' has no meaning for black-and-white y: choose another 'model.likelihood'"
    if table.patience is not None:
        yield "'train.patience' has no meaning with 'train.adversarial', which costs some of the bound; leave it out"


def find_adversarial_problems(job: Job) -> Iterator[str]:
    """Yield a kind of loss for nothing."""
    if job.train.adversarial is None and "train.adversarial_loss" in job.set_options("train"):
        yield "'train.adversarial_loss' is set, and there is no 'train.adversarial': give its weight, such as 1"


def _find_unused(job: Job, plan: Plan) -> Iterator[tuple[str, str]]:
    """Each option that says something which nothing would look at, and why."""
    asked = {key.removeprefix("model.") for key in job.set_options("model")}
    of_features = ("backbone", "backbone_weights", "strides", "layers")
    if not plan.target.features:
        yield from ((key, f"where 'model.target' is {plan.target_name}") for key in of_features if key in asked)
    if plan.target.whole and "stages" in asked:
        yield "stages", f"where 'model.target' is {plan.target_name}: y is a single place"


def find_prior(job: Job) -> PriorKind:
    """Return the job's kind of prior."""
    return all_priors()[job.model.prior]


def find_score_kind(job: Job, plan: Plan) -> ScoreKind:
    """Return what the score is made of: of a single place it is the bound itself."""
    return job.model.score or ("elbo" if plan.target.whole else "places")


def network_options(job: Job) -> dict[str, Any]:
    """Return the network's options that the job sets."""
    asked = {
        "latent_channels": job.model.latent_channels,
        "width": job.model.width,
        "blocks": job.model.blocks,
        "dropout": job.model.dropout or None,
        "latent_grid": None if job.model.latent is None else job.model.latent == "grid",
    }
    return {name: value for name, value in asked.items() if value is not None}
