"""The restoration graph: a degraded image in, the restored one and its error bar out. This is what gets exported.

Nothing is drawn from a posterior here: where y is unknown the network reports p(y|c) itself, mean and scale.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.likelihoods.gaussian import Gaussian, GaussianLikelihood
from vaecore.networks.restorer import Restorer

OUTPUTS = {"restored": "share of the range of values", "restored_scale": "share of the range of values"}


class RestorationGraph(nn.Module):
    """Images as files have them, channels last, to p(y|c) in the same form."""

    factor: Tensor

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        factor: Float[Tensor, " C"] | None = None,
        exponent: float = 1.0,
    ) -> None:
        """Wrap a trained network.

        Args:
            network: Whose input has as many channels as the images.
            likelihood: From its output to p(y|c).
            factor: By which the scale of each channel is multiplied, learned on held-out images; default: one.
            exponent: To which it is raised before, likewise.
        """
        super().__init__()
        self.network, self.likelihood = network, likelihood
        self.register_buffer("factor", torch.ones(network.outputs) if factor is None else factor)
        self.exponent = exponent

    def predict(self, c: Float[Tensor, "B C H W"]) -> Gaussian:
        """p(y | c), its scale as the network gives it."""
        predicted: Gaussian = self.likelihood(self.network(c))
        return predicted

    def forward(self, image: Float[Tensor, "N H W C"]) -> dict[str, Tensor]:
        """Restore a batch.

        Args:
            image: Values divided by the largest that their type holds, not clipped; height and width are multiples of
                the network's.

        Returns:
            `OUTPUTS`, each (N, H2, W2, C2): the mean, which may leave [0, 1] a little, and the standard deviation.
        """
        predicted = self.predict(image.permute(0, 3, 1, 2))
        scale = torch.exp(self.exponent * predicted.log_scale) * self.factor[:, None, None]
        return {"restored": predicted.mean.permute(0, 2, 3, 1), "restored_scale": scale.permute(0, 2, 3, 1)}


SCALE_SHARE = 0.01  # the two heads share no weights, so this only keeps the scale's gradient out of their common norm
CHARBONNIER = 1e-3  # below this share of the range an error counts as its square
LEAST_ERROR = 1e-2  # mean error of an image, below which there is little to gain
USUAL_ERROR = 3e-2  # keeps gradients where they were: their norm is limited


def restoration_loss(predicted: Gaussian, y: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """What training minimises: the mean's error, and the scale's negative log-likelihood given that mean.

    The bound itself weighs each pixel's error by its predicted scale, and gives up on what is hard; PSNR does not. So
    the mean is trained by its error alone, and the scale on what the mean leaves. An image's error counts by its
    logarithm, as in PSNR: under much noise errors are large, and would drown what can be gained under little.

    Source: the Charbonnier loss as in Lai et al. 2017, "Deep Laplacian pyramid networks"; the two fitted apart: Skafte,
    Jorgensen, Hauberg 2019, "Reliable training and estimation of variance networks" (mean-variance split).
    """
    error = (predicted.mean - y).square()
    of_each = (error + CHARBONNIER**2).sqrt().mean(dim=(1, 2, 3))
    of_mean = USUAL_ERROR * (of_each + LEAST_ERROR).log().mean()
    of_scale = -Gaussian(predicted.mean.detach(), predicted.log_scale).log_prob(y).mean()
    return of_mean + SCALE_SHARE * of_scale


def psnr(restored: Float[Tensor, "B C H W"], y: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio of each image in dB, for values in [0, 1]: the restored ones are clipped to it first.

    At most 100 dB, for images that are equal.
    """
    error = (restored.clamp(0, 1) - y).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp(min=1e-10))
