"""A quick look at features before training: whether small details or the wider view show synthetic defects better.

In place of the network, one Gaussian over all places stands in: it fits in seconds, and it ranks the two as the trained
models do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.build import build_features, standardises
from pipelines.data import TrainingData
from pipelines.errors import JobError
from pipelines.figures import separation
from pipelines.images import Failed
from pipelines.inputs import decode_for
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.progress import progress
from pipelines.session import keyed_generator
from pipelines.synthetic import synthesize
from vaecore.image_format import resize
from vaecore.pooling import POOLINGS
from vaecore.representations import Features

log = logging.getLogger(__name__)
FITTED_IMAGES = 48
DAMAGED_IMAGES = 24
DEFECTS_PER_IMAGE = 3
CLEARLY_BETTER = 0.03  # AUROC by which details, which take longer, have to beat the wider view


def details_help(job: Job, wide: Plan, fine: Plan, data: TrainingData) -> bool:
    """Whether damaged images stand out clearly better in fine features than in those of the wider view.

    Args:
        job: Names the backbone.
        wide: What is chosen in doubt.
        fine: The alternative, on images at least as large.
        data: Whose images are looked at: some are fitted, others damaged, none of those kept for calibration.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or the wider view's strides.
    """
    standardise = standardises(job, wide, data)
    views = {wide.target_name: build_features(job, wide, standardise=standardise)}
    try:
        views[fine.target_name] = build_features(job, fine, standardise=standardise)
    except JobError:
        return False  # the backbone has no finer maps
    fitted, good, bad = _images(data, fine)
    figures = {}
    for name, features in views.items():
        scores = _scores(features, fitted, [*good, *bad], f"look at {name}")
        figures[name] = max(separation(each[: len(good)], each[len(good) :]) for each in scores)
    helps = figures[fine.target_name] >= figures[wide.target_name] + CLEARLY_BETTER
    log.info(
        "chosen: %s (synthetic defects show with AUROC %s)",
        fine.target_name if helps else wide.target_name,
        ", ".join(f"{value:.3f} in {name}" for name, value in figures.items()),
    )  # fmt: skip
    return helps


def _images(data: TrainingData, plan: Plan) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Images to fit, others that are good, and damaged copies of those: (1, C, h, w) at the plan's size."""
    train, select = data.files_of("train"), data.files_of("select")
    fitted, good, bad = [], [], []
    for image in decode_for(train[:FITTED_IMAGES], plan.image_format):
        if not isinstance(image, Failed):
            fitted.append(_resized(image.pixels, plan))
    others = [*select, *train[FITTED_IMAGES:]][:DAMAGED_IMAGES]
    for image in decode_for(others, plan.image_format):
        if not isinstance(image, Failed):
            rng = keyed_generator(image.sha256)
            good.append(_resized(image.pixels, plan))
            bad += [_resized(synthesize(image.pixels, rng).image, plan) for _ in range(DEFECTS_PER_IMAGE)]
    return fitted, good, bad


def _resized(pixels: NDArray[Any], plan: Plan) -> Tensor:
    return resize(plan.image_format.to_unit(torch.from_numpy(pixels[None])), plan.size)


@torch.inference_mode()
def _scores(
    features: Features, fitted: Sequence[Tensor], images: Sequence[Tensor], what: str
) -> list[NDArray[np.float32]]:
    """Scores of images by every pooling."""
    with progress(log, what, len(fitted) + len(images), "images") as advance:

        def extract(image: Tensor) -> Tensor:
            advance()
            return features.extract(image)

        distances = Distances(torch.cat([extract(image) for image in fitted]))
        places = torch.cat([distances(extract(image)) for image in images])
    return [pooling(places).numpy() for pooling in POOLINGS]


class Distances:
    """Mahalanobis distances of places to those of other images."""

    def __init__(self, maps: Tensor) -> None:
        """Fit mean and covariance to every place of maps (N, D, h, w)."""
        rows = maps.transpose(0, 1).flatten(1).double()
        self._mean = rows.mean(dim=1)
        covariance = torch.cov(rows)
        ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
        self._factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))

    def __call__(self, maps: Tensor) -> Tensor:
        """Squared distance over D, (N, h, w), of each place of maps (N, D, h, w)."""
        error = maps.transpose(0, 1).flatten(1).double() - self._mean[:, None]
        distances: Tensor = torch.linalg.solve_triangular(self._factor, error, upper=False).square().mean(dim=0)
        return distances.view(maps.shape[0], *maps.shape[2:]).float()
