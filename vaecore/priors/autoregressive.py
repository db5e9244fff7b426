"""A masked network as the prior of any network: the density of each latent given all before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.networks.blocks import LEARNED_PRIOR
from vaecore.networks.pixel_cnn import MaskedNetwork, Watch
from vaecore.priors.base import DensityByLatent, OtherPrior, PriorKind, full_precision, single

MODES = 5  # Gaussians that a latent's distribution given those before it is a mixture of


@dataclass(frozen=True, slots=True, eq=False)
class AutoregressiveDensity(DensityByLatent):
    """p(z) = prod_i p(z_i | z_1 to z_(i-1)), the factors mixtures of Gaussians.

    i goes over the places of the grid row by row, and over the channels of each place.
    """

    masked: MaskedNetwork

    def log_prob(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of the log-density: that of itself given those before it, in nats."""
        with full_precision(z):
            flat = single(z.flatten(0, 1))
            log_weight, mean, log_scale = _mixture(self.masked(flat), flat.shape[1])
            each = log_weight + DiagonalGaussian(mean, log_scale).log_prob(flat.unsqueeze(1))
            log_p: Tensor = torch.logsumexp(each, dim=1).unflatten(0, (z.shape[0], z.shape[1]))
            return log_p


def _mixture(parameters: Float[Tensor, "B P h w"], latents: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithm of the weight, mean and log-scale of each Gaussian of each latent, all (B, K, Z, h, w)."""
    logits, mean, log_scale = parameters.unflatten(1, (3, MODES, latents)).unbind(1)
    return torch.log_softmax(logits, dim=1), mean, log_scale.clamp(*LEARNED_PRIOR)


class AutoregressivePrior(OtherPrior):
    """Any network, with an autoregressive density in place of its standard normal prior.

    Latents on a grid follow each other place by place, those of a vector channel by channel. The density is exact in
    one pass; a sample takes one for each latent, small ones.

    Source: Chen et al. 2017, "Variational lossy autoencoder", section 3.2, and van den Oord et al. 2017, "Neural
    discrete representation learning", section 3.3, for priors of this kind; `MaskedNetwork` for the network.
    """

    def __init__(self, network: nn.Module) -> None:
        """Give a network that satisfies `LatentVariableModel` another prior."""
        super().__init__(network)
        latents, height, width = self.latent_shape
        self.masked = MaskedNetwork(latents, 3 * MODES, layers=4 if height * width > 1 else 0)

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> AutoregressiveDensity:
        """p(z)."""
        del z
        return AutoregressiveDensity(self.masked)

    def sample_prior(
        self, count: int, generator: torch.Generator, watch: Watch | None = None
    ) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z), one after the other.

        Args:
            count: How many images' latents.
            generator: Source of chance, on the CPU.
            watch: Told the number of rows that are there, and the latents, after each row of the grid.
        """

        def draw(parameters: Float[Tensor, "B P 1 1"]) -> Float[Tensor, "B 1 1 1"]:
            log_weight, mean, log_scale = (part[:, :, 0, 0, 0] for part in _mixture(parameters, 1))
            which = torch.multinomial(log_weight.exp(), 1, generator=generator)
            noise = torch.randn((len(which), 1), generator=generator)
            drawn = mean.gather(1, which) + log_scale.gather(1, which).exp() * noise
            return drawn[:, :, None, None]

        return self.masked.fill(torch.zeros((count, *self.latent_shape)), draw, watch)


PRIOR = PriorKind(
    summary="autoregressive: each latent's density given those before it",
    wrap=lambda network, _: AutoregressivePrior(network),
)
