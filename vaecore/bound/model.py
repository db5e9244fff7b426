"""What the bound needs to know about a network."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound.gaussian import DiagonalGaussian
from vaecore.likelihoods.base import Distribution, Likelihood


class Prior(Protocol):
    """p(z), as the bound asks for it."""

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """Log-density of all latents together."""
        ...

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of KL(posterior || self), with samples z of the posterior; an estimate, or exact."""
        ...


class LatentVariableModel(Protocol):
    """What the bound needs to know about a network: q(z|y), p(z) and p(y|z)."""

    @property
    def likelihood(self) -> Likelihood:
        """From the network's output to p(y|z)."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Z, h, w."""
        ...

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        ...

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> Prior:
        """p(z) by sample, or with S = 1 where it is the same for all; a level may depend on the one above."""
        ...

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        ...


class GenerativeModel(LatentVariableModel, Protocol):
    """One whose latents can be drawn without an image."""

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z)."""
        ...


class HierarchicalModel(LatentVariableModel, Protocol):
    """Two levels of latents: p(z) = p(lower | upper) p(upper), the lower ones first in Z."""

    lower_channels: int

    def from_above(self, z: Float[Tensor, "B S Z h w"], noise: Float[Tensor, "B S Z h w"]) -> Tensor:
        """z with its lower level drawn anew from p(lower | upper)."""
        ...


@runtime_checkable
class ExactModel(Protocol):
    """One whose distortion is known in closed form: its bound needs no sample of the latent."""

    def expected_distortion(self, y: Float[Tensor, "B C H W"], posterior: DiagonalGaussian) -> Tensor:
        """-E_q[log p(y | z)] of each dimension (B, C, H, W), in nats."""
        ...
