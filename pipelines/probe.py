"""A quick look at features before training: which form of them shows synthetic defects best.

In place of the network, one Gaussian over all places stands in: it fits in a second, and what it ranks higher, the
trained model ranks higher, too.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from pipelines.data import TrainingData
from pipelines.figures import separation
from pipelines.plan import Plan
from pipelines.progress import progress
from pipelines.session import keyed_generator
from pipelines.synthetic import synthesize
from vaecore.backbones import Backbone
from vaecore.pooling import POOLINGS
from vaecore.representations import Features

log = logging.getLogger(__name__)
TRAIN_IMAGES = 48
SELECT_IMAGES = 24
DEFECTS_PER_IMAGE = 3
CLEARLY_BETTER = 0.02  # AUROC by which raw features have to beat averaged ones


@torch.inference_mode()
def smoothing_helps(backbone: Backbone, plan: Plan, data: TrainingData) -> bool:
    """Whether features averaged over 3x3 places tell damaged images from good ones as well as raw features do.

    Args:
        backbone: Frozen network.
        plan: Format and size of the images.
        data: Decoded images: some of train are fitted, some of select are damaged.
    """
    train = [data.pixels[index] for index in data.split["train"][:TRAIN_IMAGES]]
    good = [data.pixels[index] for index in data.split["select"][:SELECT_IMAGES]]
    bad = []
    for index, pixels in zip(data.split["select"], good, strict=False):
        rng = keyed_generator(data.sha256[index])
        bad += [synthesize(np.array(pixels), rng).image for _ in range(DEFECTS_PER_IMAGE)]
    forms = {smooth: Features(backbone, input_size=plan.size, smooth=smooth) for smooth in (True, False)}
    found: dict[bool, list[Tensor]] = {smooth: [] for smooth in forms}
    with progress(log, "look at features", len(train) + len(good) + len(bad), "images") as advance:
        for pixels in [*train, *good, *bad]:
            image = plan.image_format.to_unit(torch.from_numpy(np.array(pixels[None])))
            maps = backbone(image.expand(-1, 3, -1, -1))  # the images are decoded at the working size
            for smooth, form in forms.items():
                found[smooth].append(form.arrange(maps))
            advance()
    figures = {}
    for smooth, each in found.items():
        places = _distances(torch.cat(each), len(train))
        scores = [pooling(places).numpy() for pooling in POOLINGS]
        figures[smooth] = max(separation(score[: len(good)], score[len(good) :]) for score in scores)
    helps = figures[False] < figures[True] + CLEARLY_BETTER
    log.info(
        "features %s: synthetic defects show with AUROC %.3f averaged, %.3f as they are",
        "averaged over 3x3 places" if helps else "as they are", figures[True], figures[False],
    )  # fmt: skip
    return helps


def _distances(maps: Tensor, fitted: int) -> Tensor:
    """Squared Mahalanobis distance (M, h, w) of each place of maps (N, D, h, w) to the first `fitted` of them."""
    rows = maps.permute(0, 2, 3, 1).double()
    reference = rows[:fitted].flatten(0, 2)
    mean = reference.mean(dim=0)
    covariance = torch.cov(reference.T)
    ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(len(covariance), dtype=covariance.dtype)
    factor = torch.linalg.cholesky(covariance + ridge)
    error = (rows[fitted:] - mean).flatten(0, 2).T
    distances: Tensor = torch.linalg.solve_triangular(factor, error, upper=False).square().mean(dim=0)
    return distances.view(rows[fitted:].shape[:3]).float()
