"""Two levels of latents: a vector that says what the image is of, above a grid that says where what is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian, LatentVariableModel
from vaecore.likelihoods.base import Distribution, Likelihood
from vaecore.networks.blocks import bounded_gaussian

UPPER_LATENTS = 16  # at least


class TwoLevelVAE(nn.Module):
    """Any network with a grid of latents, and an upper level over it: p(upper) p(grid | upper) p(y | grid).

    q(grid | y) q(upper | y), the upper from the grid's mean. Both levels travel in one tensor: the upper one, a vector,
    fills the last channels of the grid.

    Source: Sonderby et al. 2016, "Ladder variational autoencoders", section 2.1 (the bottom-up hierarchy).
    """

    latent_shape: tuple[int, int, int]
    likelihood: Likelihood

    def __init__(self, lower: nn.Module, *, upper_channels: int | None = None, width: int = 256) -> None:
        """Put a level above a network.

        Args:
            lower: Satisfies `LatentVariableModel`; its prior is replaced.
            upper_channels: Upper latents for each cell of the grid: as many times its cells in all. Default: as many as
                make 16 in all.
            width: Units of the two hidden layers between the levels.
        """
        super().__init__()
        self.lower = lower
        self.likelihood = self._lower.likelihood
        self.lower_channels, height, width_of_grid = self._lower.latent_shape
        cells = height * width_of_grid
        upper_channels = upper_channels or -(-UPPER_LATENTS // cells)
        self.latent_shape = (self.lower_channels + upper_channels, height, width_of_grid)
        self._grid = (height, width_of_grid)
        self.to_upper = _between(self.lower_channels * cells, width, 2 * upper_channels * cells)
        self.to_prior = _between(upper_channels * cells, width, 2 * self.lower_channels * cells)

    @property
    def _lower(self) -> LatentVariableModel:
        return self.lower  # type: ignore[return-value]  # a Protocol that modules satisfy

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y) of both levels."""
        lower = self._lower.posterior(y)
        upper = self._gaussian(self.to_upper(lower.mean.flatten(1)))
        return DiagonalGaussian(
            torch.cat([lower.mean, upper.mean], dim=1), torch.cat([lower.log_scale, upper.log_scale], dim=1)
        )

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:
        """p(grid | upper) of each sample, and the standard normal p(upper)."""
        lower, upper = self._below(z), torch.zeros_like(z[:, :, self.lower_channels :])
        return DiagonalGaussian(torch.cat([lower.mean, upper], dim=2), torch.cat([lower.log_scale, upper], dim=2))

    def from_above(self, z: Float[Tensor, "B S Z h w"], noise: Float[Tensor, "B S Z h w"]) -> Tensor:
        """z with its grid drawn anew from p(grid | upper)."""
        below = self._below(z)
        drawn = below.mean + below.log_scale.exp() * noise[:, :, : self.lower_channels]
        return torch.cat([drawn, z[:, :, self.lower_channels :]], dim=2)

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents of both levels drawn from p(grid | upper) p(upper)."""
        noise = torch.randn((count, 1, *self.latent_shape), generator=generator)
        return self.from_above(noise, noise)[:, 0]

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z), which looks at the grid alone."""
        return self._lower.decode(z[:, : self.lower_channels])

    def _below(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:
        """p(grid | upper), (B, S, Z, h, w)."""
        made = self._gaussian(self.to_prior(z[:, :, self.lower_channels :].flatten(0, 1).flatten(1)))
        shape = (z.shape[0], z.shape[1])
        return DiagonalGaussian(made.mean.unflatten(0, shape), made.log_scale.unflatten(0, shape))

    def _gaussian(self, parameters: Float[Tensor, "B P"]) -> DiagonalGaussian:
        return bounded_gaussian(parameters.unflatten(1, (-1, *self._grid)))


def _between(inputs: int, width: int, outputs: int) -> nn.Module:
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)  # starts as the standard normal, which a network without levels has
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
