"""Laplace: like the Gaussian, with heavier tails, so that edges cost less."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.likelihoods.base import Likelihood
from vaecore.likelihoods.gaussian import HALF_LEVEL, bounded_log_scale


@dataclass(frozen=True, slots=True, eq=False)
class Laplace:
    """Double-exponential distribution of each dimension, by mean and log of the scale b."""

    mean: Float[Tensor, "B C H W"]
    log_scale: Float[Tensor, "B C H W"]

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """sqrt(2) b."""
        return self.log_scale.exp() * math.sqrt(2)

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Log-density in nats."""
        return -(y - self.mean).abs() * torch.exp(-self.log_scale) - self.log_scale - math.log(2)


class LaplaceLikelihood(Likelihood):
    """Mean and scale for every pixel and channel."""

    parameters_per_channel: int = 2

    def __init__(self, least_scale: float = HALF_LEVEL) -> None:
        """Keep the smallest scale that means something: half an 8-bit level, for images."""
        super().__init__()
        self.least_scale = least_scale

    def forward(self, parameters: Float[Tensor, "B PC H W"]) -> Laplace:
        """First half of the channels: mean; second half: raw log-scale."""
        mean, raw = parameters.chunk(2, dim=1)
        return Laplace(mean, bounded_log_scale(raw, self.least_scale))
