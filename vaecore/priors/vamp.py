"""The VampPrior: a mixture of the posteriors of learned images."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import LatentVariableModel
from vaecore.networks.blocks import LEARNED_PRIOR
from vaecore.priors.base import PriorKind
from vaecore.priors.mixture import GaussianMixture, MixturePrior


class VampPrior(MixturePrior):
    """A mixture of the posteriors of K images that are learned: what the encoder makes of typical y.

    Latents on a grid: each cell of an image's posterior is a component, so that there are K times as many.

    Source: Tomczak and Welling 2018, "VAE with a VampPrior", eq. 9.
    """

    def __init__(self, network: nn.Module, pseudo_inputs: Float[Tensor, "K C H W"]) -> None:
        """Give a network another prior.

        Args:
            network: Satisfies `LatentVariableModel`.
            pseudo_inputs: What learning begins with, such as some of the training images.
        """
        super().__init__(network, self.components_of(network, len(pseudo_inputs)))
        del self.mean, self.log_scale
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.clone())

    @staticmethod
    def components_of(network: nn.Module, images: int) -> int:
        """K of the mixture that so many learned images make: one for each cell of each posterior."""
        _, height, width = cast("LatentVariableModel", network).latent_shape
        return images * height * width

    @torch.no_grad()
    def begin_with(self, images: Float[Tensor, "K C H W"]) -> None:
        """Let learning begin with these."""
        self.pseudo_inputs.copy_(images)

    def mixture(self) -> GaussianMixture:
        """p(z) as it is now."""
        posterior = self._inner.posterior(self.pseudo_inputs)
        mean, log_scale = (part.movedim(1, -1).flatten(0, 2) for part in (posterior.mean, posterior.log_scale))
        return GaussianMixture(torch.log_softmax(self.logits, 0), mean, log_scale.clamp(*LEARNED_PRIOR))

    @torch.no_grad()
    def settle(self) -> MixturePrior:
        """The same with the components as numbers: an exported graph need not encode the learned images each time."""
        mixture = self.mixture()
        fixed = MixturePrior(self.network, len(mixture.log_weight))
        fixed.logits.copy_(mixture.log_weight)
        fixed.mean.copy_(mixture.mean)
        fixed.log_scale.copy_(mixture.log_scale)
        return fixed


PRIOR = PriorKind(
    summary="a mixture of the posteriors of {components} learned images (VampPrior)",
    wrap=lambda network, of: VampPrior(network, torch.rand(of.components, *of.shape)),
    components=True,
    begin=lambda model, images: cast("VampPrior", model).begin_with(images),
    finish=lambda model, *_: cast("VampPrior", model).settle(),
    exported=lambda network, of: MixturePrior(network, VampPrior.components_of(network, of.components)),
)
