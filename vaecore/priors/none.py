"""The autoencoder: any network whose latents are their mean, and cost nothing. Not a bound on anything."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.bound import DiagonalGaussian
from vaecore.priors.base import OtherPrior, PriorKind


class NoPrior:
    """Every latent is as good as any other."""

    def log_density(self, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S"]:
        """There is none.

        Raises:
            TypeError: Always: without a prior there is no likelihood to bound.
        """
        msg = (
            f"a deterministic autoencoder has no density of latents {tuple(z.shape)}: its score is the distortion alone"
        )
        raise TypeError(msg)

    def kl_from(self, posterior: DiagonalGaussian, z: Float[Tensor, "B S Z h w"]) -> Float[Tensor, "B S Z h w"]:
        """Nothing."""
        del posterior
        return torch.zeros_like(z)


class Autoencoder(OtherPrior):
    """A network without chance in its latents: y to their mean, and back. What is left of the bound is the distortion.

    Nothing asks latents of like images to lie together, or all of them to lie near zero: what is decoded between two
    of them may be like neither (the gaps of an autoencoder's latent space).

    Source: Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks"; with linear maps
    its span is that of principal components (Baldi and Hornik 1989).
    """

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """The mean of q(z | y), without width."""
        mean = self._inner.posterior(y).mean
        return DiagonalGaussian(mean, torch.full_like(mean, -math.inf))

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> NoPrior:
        """None."""
        del z
        return NoPrior()

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """There is none.

        Raises:
            TypeError: Always.
        """
        del count, generator
        msg = "an autoencoder has no prior: nothing tells which latents are likely"
        raise TypeError(msg)


PRIOR = PriorKind(
    summary="none: an autoencoder, whose `elbo` is minus the distortion and bounds no likelihood",
    wrap=lambda network, _: Autoencoder(network),
    density=False,
)
