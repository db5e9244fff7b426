"""An image-to-image network with latents, for where c leaves open what y is: p(y|c) = integral p(y|z,c) p(z|c) dz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods import Categorical, CategoricalLikelihood
from vaecore.networks.blocks import LEARNED_PRIOR, bounded_gaussian
from vaecore.networks.unet import Encoded, UNet, residual_blocks


class ConditionalVAE(UNet):
    """Image to label map, with a latent in each cell of the coarsest grid, whose prior is learned from the image.

    Latents are local, so that an image in tiles comes out as the whole one does.

    Source: Sohn, Lee, Yan 2015, "Learning structured output representation using deep conditional generative models",
    eq. 4; the latent in a U-Net as in Kohl et al. 2018, "A probabilistic U-Net for segmentation of ambiguous images".
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        latent_channels: int,
        widths: Sequence[int] = (32, 56, 80),
        blocks: Sequence[int] = (1, 1, 2),
    ) -> None:
        """Build the network.

        Args:
            channels: Of the image c.
            classes: Of the labels y, background included.
            latent_channels: Latents in each cell of the coarsest grid.
            widths: Channels of the inner maps at each resolution, the first at half of the input's.
            blocks: Residual blocks at each resolution; see `UNet`.
        """
        super().__init__(channels=channels, widths=widths, blocks=blocks)
        self.classes, self.latent_channels = classes, latent_channels
        self.likelihood = CategoricalLikelihood(classes)
        wide, cell = widths[-1], self.multiple
        self.of_prior = nn.Conv2d(wide, 2 * latent_channels, 1)
        self.of_labels = nn.Sequential(nn.PixelUnshuffle(cell), nn.Conv2d(cell**2 * classes, wide, 1))
        self.of_posterior = nn.Sequential(*residual_blocks(wide, 1), nn.Conv2d(wide, 2 * latent_channels, 1))
        self.of_latents = nn.Conv2d(latent_channels, wide, 1)
        self.below = nn.Sequential(*residual_blocks(wide, 1))
        last = nn.Conv2d(widths[0], classes * self.first**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.tail = nn.Sequential(last, nn.PixelShuffle(self.first))

    @property
    def halo(self) -> int:
        """How far a label looks into the image, in pixels of it."""
        return self.halo_of(convolutions=1, below=1)

    def given(self, c: Float[Tensor, "B C H W"]) -> Given:
        """What is left of the model once the image is known: a latent variable model of its labels."""
        return Given(self, self.encode(c))

    def forward(self, c: Float[Tensor, "B C H W"], noise: Float[Tensor, "B Z h w"]) -> Float[Tensor, "B K H W"]:
        """Logits of p(y | z, c) at z = the prior's mean + its scale * noise: at its mean, where that is zero."""
        given = self.given(c)
        prior = given.prior_given
        return self.logits(given.encoded, prior.mean + prior.log_scale.exp() * noise)

    def logits(self, encoded: Encoded, z: Float[Tensor, "B Z h w"]) -> Float[Tensor, "B K H W"]:
        """Of the labels, for one z for each image."""
        found: Tensor = self.tail(self.decode(self.below(encoded.coarsest + self.of_latents(z)), encoded))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """p(y, z | c) of a batch of images c: what `vaecore.bound` asks of a model."""

    network: ConditionalVAE
    encoded: Encoded

    @property
    def likelihood(self) -> CategoricalLikelihood:
        """Of the labels."""
        return self.network.likelihood

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latents in a cell, and cells along each side."""
        height, width = self.encoded.coarsest.shape[-2:]
        return self.network.latent_channels, height, width

    @property
    def prior_given(self) -> DiagonalGaussian:
        """p(z | c) of each image."""
        return bounded_gaussian(self.network.of_prior(self.encoded.coarsest), LEARNED_PRIOR)

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:  # noqa: ARG002 - the same for all samples
        """p(z | c), with an axis for samples."""
        return self.prior_given.for_samples()

    def posterior(self, y: Float[Tensor, "B 1 H W"]) -> DiagonalGaussian:
        """q(z | y, c) of label maps, which hold class indices."""
        one_hot = (y == torch.arange(self.network.classes, device=y.device)[:, None, None]).to(y.dtype)
        seen = self.encoded.coarsest + self.network.of_labels(one_hot)
        return bounded_gaussian(self.network.of_posterior(seen), LEARNED_PRIOR)

    def decode(self, z: Float[Tensor, "N Z h w"]) -> Categorical:
        """p(y | z, c); where there are several z for each image, those of an image follow each other."""
        samples = len(z) // len(self.encoded.coarsest)
        found: Categorical = self.likelihood(self.network.logits(_repeated(self.encoded, samples), z))
        return found


def _repeated(encoded: Encoded, samples: int) -> Encoded:
    if samples == 1:
        return encoded
    coarsest, skips, first = encoded
    return Encoded(
        coarsest.repeat_interleave(samples, 0),
        tuple(skip.repeat_interleave(samples, 0) for skip in skips),
        first.repeat_interleave(samples, 0),
    )
