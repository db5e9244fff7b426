"""The segmentation graph: an image in, the probability of each class at each pixel out; and what trains it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import bound_maps, training_loss
from vaecore.networks.conditional_vae import ConditionalVAE

OUTPUTS = {"restored": "probability of each class", "restored_scale": "standard deviation of its indicator"}


class SegmentationGraph(nn.Module):
    """Images as files have them, channels last, to p(y|z,c) in the same form."""

    temperature: Tensor

    def __init__(self, network: ConditionalVAE, temperature: float = 1.0) -> None:
        """Wrap a trained network.

        Args:
            network: Whose input has as many channels as the images.
            temperature: Logits are divided by it, so that of the pixels said to be of a class with 80 % about 80 % are;
                learned on held-out images (Guo et al. 2017, "On calibration of modern neural networks", section 4.2).
        """
        super().__init__()
        self.network = network
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, image: Float[Tensor, "N H W C"], noise: Float[Tensor, "N h w Z"]) -> dict[str, Tensor]:
        """Label a batch.

        Args:
            image: Values divided by the largest that their type holds; height and width are multiples of the network's.
            noise: Standard normal, one number for each latent: another noise is another sample of the labels. Zeros
                give the labels at the mean of p(z|c).

        Returns:
            `OUTPUTS`, each (N, H, W, K): K classes, the first being background.
        """
        logits = self.network(image.permute(0, 3, 1, 2), noise.permute(0, 3, 1, 2)) / self.temperature
        p = logits.softmax(dim=1).permute(0, 2, 3, 1)
        return {"restored": p, "restored_scale": (p * (1 - p)).sqrt()}


def segmentation_loss(
    network: ConditionalVAE, c: Float[Tensor, "B C H W"], y: Float[Tensor, "B 1 H W"], noise: Float[Tensor, "B Z h w"]
) -> Float[Tensor, ""]:
    """Half of the bound, and half of the log-likelihood with z drawn from the prior, in nats for each pixel.

    The bound alone never decodes what p(z|c) gives, which is all that there is once the labels are unknown.

    Source: Sohn, Lee, Yan 2015, "Learning structured output representation using deep conditional generative models",
    eqs. 5 and 6, with alpha = 1/2.
    """
    given = network.given(c)
    of_bound = training_loss(bound_maps(given, y, noise[:, None]))
    prior = given.prior_given
    of_prior = -given.decode(prior.mean + prior.log_scale.exp() * noise).log_prob(y).mean()
    return (of_bound + of_prior) / 2
