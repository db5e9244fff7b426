"""A learned mixture of Gaussians as the prior of any network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.networks.blocks import LEARNED_PRIOR
from vaecore.priors.base import COMPONENTS, OtherPrior, PriorKind, full_precision, single


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixture:
    """p(z) = sum_k pi_k N(z; m_k, s_k) in each cell of the latent grid, the same for all cells."""

    log_weight: Float[Tensor, " K"]  # log pi
    mean: Float[Tensor, "K Z"]
    log_scale: Float[Tensor, "K Z"]

    def log_joint(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S K h w"]:
        """log pi_k + log N(z; m_k, s_k), by cell."""
        with full_precision(z):
            of_square, of_z, constant = self._polynomial()
            squares = torch.einsum("bszhw,kz->bskhw", single(z).square(), of_square)
            products = torch.einsum("bszhw,kz->bskhw", single(z), of_z)
            return squares + products + (constant.sum(dim=1) + self.log_weight)[:, None, None]

    def _polynomial(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients of log N(z; m_k, s_k) in z^2, z and 1, each (K, Z)."""
        mean, log_scale = single(self.mean), single(self.log_scale)
        precision = torch.exp(-2 * log_scale)
        constant = -0.5 * precision * mean.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return -0.5 * precision, precision * mean, constant

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """Log-density of all latents together."""
        return torch.logsumexp(self.log_joint(z), dim=2).sum(dim=(2, 3))

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """What each latent has of log q(z) - log p(z), an estimate of KL(q || p) that can be below zero.

        With r the responsibilities of the components for z, log p(z) = sum_k r_k (log N_k(z) - log (r_k / pi_k)): the
        first part is a sum over latents, the second, of which component it is, is divided evenly among them.
        """
        responsibility = torch.softmax(self.log_joint(z), dim=2)
        of_square, of_z, constant = self._polynomial()

        def expected(of_component: Float[Tensor, "K Z"]) -> Float[Tensor, "B S Z h w"]:
            return torch.einsum("bskhw,kz->bszhw", responsibility, of_component)

        with full_precision(z):
            cross = z.square() * expected(of_square) + z * expected(of_z) + expected(constant)
        log_ratio = torch.log(responsibility.clamp(min=1e-30)) - self.log_weight[:, None, None]
        which = (responsibility * log_ratio).sum(dim=2, keepdim=True) / z.shape[2]
        return posterior.log_prob(z) - cross + which

    def component_of(self, z: Float[Tensor, "N Z h w"], generator: torch.Generator) -> DiagonalGaussian:
        """A component that each cell's latents may be of, drawn from p(k | z), as a distribution of them."""
        which = torch.softmax(self.log_joint(z[:, None])[:, 0], dim=1).movedim(1, -1)  # (N, h, w, K)
        drawn = torch.multinomial(which.flatten(0, 2), 1, generator=generator).reshape(which.shape[:-1])
        return DiagonalGaussian(self.mean[drawn].movedim(-1, 1), self.log_scale[drawn].movedim(-1, 1))

    def sample(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents of so many images, each cell by itself."""
        cells = count * grid[0] * grid[1]
        which = torch.multinomial(self.log_weight.exp(), cells, replacement=True, generator=generator)
        noise = torch.randn((cells, self.mean.shape[1]), generator=generator)
        drawn = self.mean[which] + self.log_scale[which].exp() * noise
        latents: Tensor = drawn.unflatten(0, (count, *grid)).movedim(-1, 1)
        return latents


class MixturePrior(OtherPrior):
    """Any network, with a learned mixture in place of its standard normal prior.

    Source: Dilokthanakul et al. 2016, "Deep unsupervised clustering with Gaussian mixture variational autoencoders", of
    which this is the prior, marginalised over the component.
    """

    def __init__(self, network: nn.Module, components: int = COMPONENTS) -> None:
        """Give a network another prior.

        Args:
            network: Satisfies `LatentVariableModel`.
            components: K.
        """
        super().__init__(network)
        latents = self.latent_shape[0]
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latents))
        self.log_scale = nn.Parameter(torch.zeros(components, latents))

    def mixture(self) -> GaussianMixture:
        """p(z) as it is now."""
        return GaussianMixture(torch.log_softmax(self.logits, 0), self.mean, self.log_scale.clamp(*LEARNED_PRIOR))

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> GaussianMixture:
        """p(z)."""
        del z
        return self.mixture()

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z)."""
        return self.mixture().sample(count, self.latent_shape[1:], generator)


PRIOR = PriorKind(
    summary="a learned mixture of {components} Gaussians",
    wrap=lambda network, of: MixturePrior(network, of.components),
    components=True,
)
