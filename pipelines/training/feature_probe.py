"""A quick look at features before training: whether small details or the wider view show synthetic defects better.

In place of the network, one Gaussian over all places stands in: it fits in seconds, and it ranks the two as the trained
models do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.anomaly.figures_of_merit import separation
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.data.plan import Plan
from pipelines.data.synthetic_defects import decode_with_defects
from pipelines.data.training_images import TrainingData
from pipelines.errors import JobError
from pipelines.jobfile.job import Job
from pipelines.training.network import build_features
from vaecore.representations import Features
from vaecore.representations.image_format import resize
from vaecore.representations.moments import Moments
from vaecore.representations.pooling import POOLINGS

log = logging.getLogger(__name__)
FITTED_IMAGES = 48
DAMAGED_IMAGES = 24
DEFECTS_PER_IMAGE = 3
CLEARLY_BETTER = 0.03  # AUROC by which details, which take longer, have to beat the wider view


def details_help(job: Job, wide: Plan, fine: Plan, data: TrainingData, *, standardise: bool) -> bool:
    """Whether damaged images stand out clearly better in fine features than in those of the wider view.

    Args:
        job: Names the backbone.
        wide: What is chosen in doubt.
        fine: The alternative, on images at least as large.
        data: Whose images are looked at: some are fitted, others damaged, none of those kept for calibration.
        standardise: Whether every image gets the same brightness and contrast.

    Raises:
        JobError: The backbone is unknown, or does not fit its weights or the wider view's strides.
    """
    views = {wide.target_name: View(build_features(job, wide, standardise=standardise, smooth=True))}
    try:
        views[fine.target_name] = View(build_features(job, fine, standardise=standardise))
    except JobError:
        return False  # the backbone has no finer maps
    train = evenly_spaced(data.files_of("train"), FITTED_IMAGES + DAMAGED_IMAGES)
    fitted = train[: min(FITTED_IMAGES, -(-len(train) // 2))]
    others = evenly_spaced([*data.files_of("select"), *train[len(fitted) :]], DAMAGED_IMAGES)
    with progress(log, "look at the images", len(fitted) + len(others), "images") as advance:
        for image, _ in decode_with_defects(fitted, fine.image_format, 0):
            advance()
            good = _resized(image.pixels, fine)
            for view in views.values():
                view.learn(good)
        for image, copies in decode_with_defects(others, fine.image_format, DEFECTS_PER_IMAGE):
            advance()
            good, bad = _resized(image.pixels, fine), [_resized(copy, fine) for copy in copies]
            for view in views.values():
                view.judge(good, bad)
    figures = {name: view.separation() for name, view in views.items()}
    helps = figures[fine.target_name] >= figures[wide.target_name] + CLEARLY_BETTER
    log.info(
        "chosen: %s (synthetic defects show with AUROC %s)",
        fine.target_name if helps else wide.target_name,
        ", ".join(f"{value:.3f} in {name}" for name, value in figures.items()),
    )  # fmt: skip
    return helps


def _resized(pixels: NDArray[Any], plan: Plan) -> Tensor:
    return resize(plan.image_format.to_unit(torch.from_numpy(pixels[None])), plan.size)


class View:
    """How well damaged images stand out in some features."""

    def __init__(self, features: Features) -> None:
        """Start with no image seen."""
        self._features, self._distances = features, Distances(features.channels)
        self._good: list[Tensor] = []
        self._bad: list[Tensor] = []

    @torch.inference_mode()
    def learn(self, image: Tensor) -> None:
        """Take in a good image, (1, C, H, W)."""
        self._distances.learn(self._features.extract(image))

    @torch.inference_mode()
    def judge(self, good: Tensor, bad: Sequence[Tensor]) -> None:
        """Measure a further good image, and damaged copies of it."""
        self._good.append(self._distances(self._features.extract(good)))
        self._bad += [self._distances(self._features.extract(each)) for each in bad]

    def separation(self) -> float:
        """AUROC between good and damaged images, by the pooling that is best."""
        good, bad = torch.cat(self._good), torch.cat(self._bad)
        return max(separation(pooling(good).numpy(), pooling(bad).numpy()) for pooling in POOLINGS)


class Distances:
    """Mahalanobis distances of places to those of other images, which are gone through one at a time."""

    def __init__(self, channels: int) -> None:
        """Start with no place seen."""
        self._moments = Moments(channels)
        self._fitted: tuple[Tensor, Tensor] | None = None

    def learn(self, maps: Tensor) -> None:
        """Take in every place of maps (N, D, h, w)."""
        self._moments.add(maps)
        self._fitted = None

    def __call__(self, maps: Tensor) -> Tensor:
        """Squared distance over D, (N, h, w), of each place of maps (N, D, h, w)."""
        if self._fitted is None:
            covariance = self._moments.covariance
            ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
            factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
            self._fitted = self._moments.mean, factor
        mean, factor = self._fitted
        error = maps.transpose(0, 1).flatten(1).double() - mean[:, None]
        distances: Tensor = torch.linalg.solve_triangular(factor, error, upper=False).square().mean(dim=0)
        return distances.view(maps.shape[0], *maps.shape[2:]).float()
