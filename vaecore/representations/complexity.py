"""How complex an image is by itself: its length under one fixed, causal code that was never trained.

A likelihood model finds simple images likely whatever they show. Minus its log-likelihood less this length asks
instead: does the model explain the image better than a code that knows nothing of it?

Source: Serra et al. 2020, "Input complexity and out-of-distribution detection with likelihood-based generative models",
eq. 5. There the length is PNG's or JPEG 2000's; here it is computed inside the graph, with the predictor of JPEG-LS
(Weinberger, Seroussi, Sapiro 2000, "The LOCO-I lossless image compression algorithm", section III.A) and a Laplace
distribution whose scale follows the errors of the neighbours that came before.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.representations.image_format import OFF_HALF

LEVELS = 256
UNIFORM = 0.01  # share of every code word's probability that is the same for all levels: none is impossible
LEAST_SCALE = 0.15  # of the Laplace distribution, in levels: flat areas cost next to nothing, never nothing
CONCENTRATION_STEPS = 10
FEWEST_TRIMMED = 30  # pairs; of fewer, all are taken
CAUSAL = ((0, 1), (0, 2), (1, 0), (2, 0), (1, 1), (1, -1))  # rows up and columns left of a pixel


def code_length(y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Nats that each value of an image costs, rounded to 256 levels, rows from the top and pixels from the left.

    Args:
        y: Images in [0, 1].

    Returns:
        Minus the log-probability of each value given those before it; its sum is the length of the whole image.
    """
    levels = torch.floor(y * (LEVELS - 1) + OFF_HALF).clamp(0, LEVELS - 1)
    west, north, northwest = (_before(levels, *offset) for offset in ((0, 1), (1, 0), (1, 1)))
    # The gradient's prediction, kept between the two neighbours: their median with it.
    predicted = torch.minimum(
        torch.maximum(west + north - northwest, torch.minimum(west, north)), torch.maximum(west, north)
    )
    error = levels - predicted
    spread = torch.stack([_before(error.abs(), *offset) for offset in CAUSAL]).mean(dim=0)
    scale = spread + LEAST_SCALE
    probability = _laplace(error + 0.5, scale) - _laplace(error - 0.5, scale)
    # What lies beyond the darkest and the brightest level is never seen: the rest makes up for it.
    inside = _laplace(LEVELS - 0.5 - predicted, scale) - _laplace(-0.5 - predicted, scale)
    return -torch.log((1 - UNIFORM) * probability / inside + UNIFORM / LEVELS)


def density_offset() -> float:
    """Nats per dimension from a density on [0, 1] to the probability of one of 256 levels."""
    return math.log(LEVELS - 1)


def _before(values: Float[Tensor, "B C H W"], up: int, left: int) -> Float[Tensor, "B C H W"]:
    """Each pixel's neighbour so many rows up and columns left; beyond the edge, 0: a decoder knows no more."""
    padded = F.pad(values, (max(left, 0), max(-left, 0), up, 0))
    height, width = values.shape[-2:]
    start = 0 if left >= 0 else -left
    return padded[:, :, :height, start : start + width]


def _laplace(x: Tensor, scale: Tensor) -> Tensor:
    """Distribution function, from the side where nothing cancels."""
    tail = 0.5 * torch.exp(-x.abs() / scale)
    return torch.where(x < 0, tail, 1 - tail)


class Typicality(nn.Module):
    """How far an image's likelihood and complexity, taken together, lie from those of good images.

    A simple image is likely whatever it shows, a complex one unlikely: what gives a foreign image away is a likelihood
    that does not go with its complexity, or a complexity that good images never have. In standard deviations
    (Mahalanobis distance), to either side.

    Source: Serra et al. 2020 for the pair; Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep
    generative models using typicality", for both sides.
    """

    mean: Tensor
    precision: Tensor

    def __init__(self, pairs: Float[Tensor, "N 2"]) -> None:
        """Fit to good images' pairs (nats per dimension each), at least three.

        One odd image among them would widen everything: mean and covariance are of the closest nine tenths, found in
        concentration steps (Rousseeuw and Van Driessen 1999, "A fast algorithm for the minimum covariance determinant
        estimator"), and scaled so that the median distance is that of a normal distribution.
        """
        super().__init__()
        rows = kept = pairs.double()
        for _ in range(CONCENTRATION_STEPS):
            mean = kept.mean(dim=0)
            precision = torch.linalg.inv(torch.cov(kept.T) + 1e-6 * torch.eye(2, dtype=torch.float64))
            squares = ((rows - mean) @ precision * (rows - mean)).sum(dim=1)
            if len(rows) >= FEWEST_TRIMMED:
                kept = rows[squares <= squares.quantile(0.9)]
        # Images that are all alike have no spread: a difference of a thousandth of a nat is none.
        covariance = torch.linalg.inv(precision) * squares.median() / (2 * math.log(2)) + 1e-6 * torch.eye(2)
        self.register_buffer("mean", mean.float())
        self.register_buffer("precision", torch.linalg.inv(covariance).float())

    def forward(self, pairs: Float[Tensor, "B 2"]) -> Float[Tensor, " B"]:
        """Distance of each pair."""
        error = pairs - self.mean
        return (error @ self.precision * error).sum(dim=1).clamp(min=0).sqrt()
