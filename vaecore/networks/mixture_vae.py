"""Several networks side by side: where one is wrong about a place, the others seldom are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian, LatentVariableModel
from vaecore.likelihoods.base import Likelihood
from vaecore.likelihoods.pooled import Pooled


class MixtureVAE(nn.Module):
    """p(y) = 1/K sum_k p_k(y), by the mean of its members' bounds: log of a mean is at least the mean of logs.

    The members' latents travel in one tensor, one member's channels after the other's. They are trained together, on
    the same batches, and differ by their first weights and the noise of their latents.

    Source: Lakshminarayanan, Pritzel, Blundell 2017, "Simple and scalable predictive uncertainty estimation using deep
    ensembles"; the bound is Jensen's inequality.
    """

    latent_shape: tuple[int, int, int]
    likelihood: Likelihood

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Put networks side by side.

        Args:
            members: Satisfy `LatentVariableModel`, with latents of one shape and one likelihood between them.
        """
        super().__init__()
        self.members = nn.ModuleList(members)
        self.likelihood = self._members[0].likelihood
        channels, height, width = self._members[0].latent_shape
        self.latent_shape = (len(members) * channels, height, width)
        self.rate_weight = 1 / len(members)

    @property
    def _members(self) -> Sequence[LatentVariableModel]:
        return self.members  # type: ignore[return-value]  # a Protocol that modules satisfy

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y) of all members."""
        return _together([member.posterior(y) for member in self._members], dim=1)

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:
        """p(z) of all members."""
        parts = z.chunk(len(self.members), dim=2)
        return _together([member.prior(part) for member, part in zip(self._members, parts, strict=True)], dim=2)

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Pooled:
        """p_k(y | z_k) of all members, whose log-densities are averaged."""
        parts = z.chunk(len(self.members), dim=1)
        return Pooled(tuple(member.decode(part) for member, part in zip(self._members, parts, strict=True)))


def _together(parts: Sequence[DiagonalGaussian], dim: int) -> DiagonalGaussian:
    return DiagonalGaussian(
        torch.cat([part.mean for part in parts], dim=dim), torch.cat([part.log_scale for part in parts], dim=dim)
    )
