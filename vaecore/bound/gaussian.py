"""Normal distributions over latents: the posterior q, and the simplest prior p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DiagonalGaussian:
    """A normal distribution over latents with independent dimensions: the posterior q, or a prior p."""

    mean: Float[Tensor, "*B Z h w"]
    log_scale: Float[Tensor, "*B Z h w"]

    def for_samples(self) -> DiagonalGaussian:
        """The same with an axis for samples, (B, 1, Z, h, w)."""
        return DiagonalGaussian(self.mean.unsqueeze(1), self.log_scale.unsqueeze(1))

    def sample(self, noise: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """Reparameterised samples: mean + scale * noise, with standard normal noise given from outside."""
        return self.mean.unsqueeze(1) + self.log_scale.exp().unsqueeze(1) * noise

    def log_prob(self, z: Float[Tensor, "*B Z h w"]) -> Float[Tensor, "*B Z h w"]:
        """Log-density of each latent dimension."""
        error = (z - self.mean) * torch.exp(-self.log_scale)
        return -0.5 * error.square() - self.log_scale - 0.5 * math.log(2 * math.pi)

    def log_density(self, z: Float[Tensor, "*B Z h w"]) -> Float[Tensor, " *B"]:
        """Log-density of all latents together."""
        return self.log_prob(z).sum(dim=(-3, -2, -1))

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """KL(posterior || self), in closed form: samples z of the posterior are for priors that have none."""
        del z
        return posterior.kl(self)

    def kl(self, other: DiagonalGaussian) -> Float[Tensor, "*B Z h w"]:
        """KL(self || other) of each latent dimension, in closed form; never negative."""
        log_ratio = self.log_scale - other.log_scale
        shift = (self.mean - other.mean) * torch.exp(-other.log_scale)
        return 0.5 * (torch.exp(2 * log_ratio) + shift.square() - 1) - log_ratio
