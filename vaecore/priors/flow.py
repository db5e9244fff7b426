"""A normalising flow as the prior of any network: a standard normal, bent by invertible layers until latents fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.priors.base import DensityByLatent, OtherPrior, PriorKind

LAYERS, WIDTH = 8, 128
MOST_STRETCH = 1.0  # log of the factor by which one layer stretches a latent, at most: at 2, a long training blew up


class Coupling(nn.Module):
    """Latents with a mask stay as they are, and say by how much the others are stretched and moved.

    Source: Dinh, Sohl-Dickstein, Bengio 2017, "Density estimation using Real NVP", eqs. 7 and 8.
    """

    kept: Tensor

    def __init__(self, latents: int, first: int) -> None:
        """Keep every second latent of a cell, from `first` on; the layer begins as the identity."""
        super().__init__()
        self.register_buffer("kept", (torch.arange(latents) % 2 == first % 2).float())
        last = nn.Linear(WIDTH, 2 * latents)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(latents, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), last)

    def forward(self, z: Float[Tensor, "*B Z"]) -> tuple[Tensor, Tensor]:
        """Towards the standard normal: new latents, and the logarithm of each one's stretch."""
        log_stretch, shift = self._change(z)
        return z * log_stretch.exp() + shift, log_stretch

    def inverse(self, u: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
        """The way back."""
        log_stretch, shift = self._change(u)
        z: Tensor = (u - shift) * (-log_stretch).exp()
        return z

    def _change(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_stretch, shift = self.net(z * self.kept).chunk(2, dim=-1)
        moved = 1 - self.kept
        return MOST_STRETCH * torch.tanh(log_stretch / MOST_STRETCH) * moved, shift * moved


@dataclass(frozen=True, slots=True, eq=False)
class FlowDensity(DensityByLatent):
    """p(z) = N(f(z); 0, I) |det df/dz| in each cell of the latent grid, the same for all cells."""

    layers: nn.ModuleList

    def log_prob(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of the log-density: that of what it becomes, and its stretch on the way there."""
        u = z.movedim(2, -1)
        stretch = torch.zeros_like(u)
        for layer in self.layers:
            u, log_stretch = layer(u)
            stretch = stretch + log_stretch
        u, stretch = u.movedim(-1, 2), stretch.movedim(-1, 2)
        zeros = torch.zeros_like(u)
        return DiagonalGaussian(zeros, zeros).log_prob(u) + stretch


class FlowPrior(OtherPrior):
    """Any network, with a flow in place of its standard normal prior, as which it begins.

    Source: Chen et al. 2017, "Variational lossy autoencoder", section 3.2, for flows as priors; the layers are those of
    Real NVP, one pass in both directions.
    """

    def __init__(self, network: nn.Module) -> None:
        """Give a network that satisfies `LatentVariableModel` another prior."""
        super().__init__(network)
        self.layers = nn.ModuleList(Coupling(self.latent_shape[0], first) for first in range(LAYERS))

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> FlowDensity:
        """p(z)."""
        del z
        return FlowDensity(self.layers)

    @torch.no_grad()
    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z)."""
        z = torch.randn((count, *self.latent_shape), generator=generator).movedim(1, -1)
        for layer in reversed(self.layers):
            z = cast("Coupling", layer).inverse(z)
        return z.movedim(-1, 1)


PRIOR = PriorKind(summary="a normalising flow (Real NVP)", wrap=lambda network, _: FlowPrior(network))
