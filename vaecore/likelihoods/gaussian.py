"""Gaussian: with one scale for all, in closed form, or with a scale of its own for every pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaecore.likelihoods.base import Distribution, Likelihood

HALF_LEVEL = 0.5 / 255  # no 8-bit image is known better than half a level: bounds the density of flat areas


def bounded_log_scale(raw: Tensor, minimum: float = HALF_LEVEL) -> Tensor:
    """A log-scale that approaches log(minimum) smoothly from above, and equals `raw` far from it."""
    floor = math.log(minimum)
    return floor + F.softplus(raw - floor)


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """Normal distribution of each dimension, by mean and log standard deviation (broadcast against the mean)."""

    mean: Float[Tensor, "B C H W"]
    log_scale: Tensor

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """The scale itself."""
        return self.log_scale.exp().expand_as(self.mean)

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Log-density in nats."""
        error = (y - self.mean) * torch.exp(-self.log_scale)
        return -0.5 * error.square() - self.log_scale - 0.5 * math.log(2 * math.pi)


class GaussianLikelihood(Likelihood):
    """Mean and scale for every pixel and channel."""

    parameters_per_channel: int = 2

    def __init__(self, least_scale: float = HALF_LEVEL) -> None:
        """Keep the smallest scale that means something: half an 8-bit level, for images."""
        super().__init__()
        self.least_scale = least_scale

    def forward(self, parameters: Float[Tensor, "B PC H W"]) -> Gaussian:
        """First half of the channels: mean; second half: raw log-scale, bounded below."""
        mean, raw = parameters.chunk(2, dim=1)
        return Gaussian(mean, bounded_log_scale(raw, self.least_scale))


class SharedGaussianLikelihood(Likelihood):
    """One scale for the whole image set, at its maximum-likelihood value: the mean squared error.

    The optimum over sigma of -log p is known in closed form, so it is computed instead of learned: sigma^2 = MSE.
    By the envelope theorem the gradient for the mean is the same as with that sigma held fixed.

    Source: Rybkin, Daniilidis, Levine 2021, "Simple and effective VAE training with calibrated decoders", eq. 4.
    """

    parameters_per_channel: int = 1
    log_scale: Tensor

    def __init__(self, least_scale: float = HALF_LEVEL) -> None:
        """Start at scale 1, before anything was observed."""
        super().__init__()
        self.least_scale = least_scale
        self.register_buffer("log_scale", torch.zeros(()))

    def forward(self, parameters: Float[Tensor, "B C H W"]) -> Gaussian:
        """The decoder's output is the mean; the scale is the last one observed."""
        return Gaussian(parameters, self.log_scale)

    @torch.no_grad()
    def observe(self, y: Float[Tensor, "B C H W"], distribution: Distribution) -> None:
        """Set sigma^2 to the mean squared error of this batch."""
        self.set_variance((y - distribution.mean).square().mean())

    @torch.no_grad()
    def set_variance(self, variance: Tensor) -> None:
        """Freeze the scale at a known variance (the whole training set's, before export)."""
        self.log_scale.copy_(0.5 * variance.clamp(min=self.least_scale**2).log())


class KnownScaleLikelihood(Likelihood):
    """A scale for each dimension of y, the same for every image, found in closed form before."""

    parameters_per_channel: int = 1
    log_scale: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Start at scale 1, for y of this shape (C, H, W)."""
        super().__init__()
        self.register_buffer("log_scale", torch.zeros(shape))

    def forward(self, parameters: Float[Tensor, "B C H W"]) -> Gaussian:
        """The decoder's output is the mean."""
        return Gaussian(parameters, self.log_scale)
