"""A network that colours: frozen features say what an image shows, one latent vector which of its likely colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods import Gaussian, GaussianLikelihood, SharedGaussianLikelihood
from vaecore.networks.blocks import LEARNED_PRIOR, bounded_gaussian
from vaecore.networks.unet import residual_blocks
from vaecore.representations.backbones import Backbone

LEAST_SCALE = 0.004  # one 8-bit level of chroma
CELLS = 8  # along a side of the grid that the posterior sees the true colours on
HIDDEN = 128  # numbers between features and latents


class Seen(NamedTuple):
    """What the backbone found in a luma."""

    maps: tuple[Tensor, ...]  # finest first, each channel standardised
    whole: Float[Tensor, "B D 1 1"]  # mean of the coarsest

    def repeated(self, samples: int) -> Seen:
        """Each image so many times in a row."""
        if samples == 1:
            return self
        return Seen(
            tuple(each.repeat_interleave(samples, 0) for each in self.maps), self.whole.repeat_interleave(samples, 0)
        )


class Colorizer(nn.Module):
    """Luma to chroma: p(y|c) = integral p(y|z,c) p(z|c) dz, y at a quarter of c's resolution.

    The latent is one vector for the image: with one in each place, whose prior knows no neighbours, samples have blots.

    Source: Sohn, Lee, Yan 2015, "Learning structured output representation using deep conditional generative models",
    eq. 4; that what is shown decides the colour of a place: Iizuka, Simo-Serra, Ishikawa 2016, "Let there be color!".
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        latent_channels: int,
        widths: Sequence[int] = (48, 64, 96, 160),
        dropout: float = 0.3,
    ) -> None:
        """Build the network.

        Args:
            backbone: Frozen, with a stride of 4 and its doubles, as many as there are widths.
            latent_channels: Length of the latent vector.
            widths: Channels of the inner maps at each stride.
            dropout: Of the features that the prior of the latent is learned from.
        """
        super().__init__()
        self.backbone, self.latent_channels = backbone, latent_channels
        self.likelihood = SharedGaussianLikelihood(LEAST_SCALE)
        self.scale_likelihood = GaussianLikelihood(LEAST_SCALE)
        channels, wide = backbone.channels, widths[-1]
        # Statistics of training, frozen afterwards: features of photographs differ a hundredfold between channels.
        self.standardise = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in channels)
        self.lateral = nn.ModuleList(nn.Conv2d(count, w, 1) for count, w in zip(channels, widths, strict=True))
        self.of_prior = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(channels[-1], HIDDEN, 1), nn.SiLU(),
            nn.Dropout(dropout), nn.Conv2d(HIDDEN, 2 * latent_channels, 1),
        )  # fmt: skip
        self.of_whole = nn.Conv2d(channels[-1], HIDDEN, 1)
        self.of_posterior = nn.Sequential(
            nn.Conv2d(2 * CELLS**2 + HIDDEN, HIDDEN, 1), nn.SiLU(), nn.Conv2d(HIDDEN, 2 * latent_channels, 1)
        )
        self.of_latents = nn.Conv2d(latent_channels, wide, 1)
        self.to_middle = nn.Conv2d(channels[-1], wide, 1)
        self.middle = nn.Sequential(*residual_blocks(wide, 2))
        self.enlarge, self.blocks = nn.ModuleList(), nn.ModuleList()
        for coarse, fine in zip(reversed(widths), widths[-2::-1], strict=False):
            self.enlarge.append(nn.Conv2d(coarse, fine, 1))
            self.blocks.append(nn.Sequential(*residual_blocks(fine, 1)))
        self.tint = nn.Conv2d(latent_channels, 2, 1)  # of the image as a whole
        self.head = nn.Conv2d(widths[0], 2, 3, padding=1)
        self.scale_head = nn.Sequential(
            nn.Conv2d(widths[0], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 1, bias=False)
        )
        for layer in (self.tint, self.head):
            nn.init.zeros_(layer.weight)

    def given(self, c: Float[Tensor, "B 1 H W"]) -> GivenLuma:
        """What is left of the model once the luma is known: a latent variable model of its chroma.

        Args:
            c: Values in [0, 1]; sides are multiples of the coarsest stride.
        """
        with torch.no_grad():
            found = self.backbone(c.expand(-1, 3, -1, -1))
        maps = tuple(standardise(each) for standardise, each in zip(self.standardise, found, strict=True))
        return GivenLuma(self, Seen(maps, maps[-1].mean(dim=(2, 3), keepdim=True)))

    def inner(self, seen: Seen, z: Float[Tensor, "B Z 1 1"]) -> Float[Tensor, "B D h w"]:
        """The maps that colours are read from."""
        *finer, coarsest = zip(self.lateral, seen.maps, strict=True)
        x = coarsest[0](coarsest[1]) + self.of_latents(z) + self.to_middle(seen.whole)
        x = self.middle(x)
        for enlarge, block, (lateral, each) in zip(self.enlarge, self.blocks, reversed(finer), strict=True):
            x = block(F.interpolate(enlarge(x), scale_factor=2.0) + lateral(each))
        inner: Tensor = x
        return inner

    def chroma(self, inner: Float[Tensor, "B D h w"], z: Float[Tensor, "B Z 1 1"]) -> Float[Tensor, "B 2 h w"]:
        """Mean of p(y | z, c)."""
        found: Tensor = self.head(inner) + self.tint(z)
        return found

    def predict(self, given: GivenLuma, z: Float[Tensor, "B Z 1 1"]) -> Gaussian:
        """The colours at z with a scale for each place, whose gradient does not reach what the mean is made by."""
        inner = self.inner(given.seen, z)
        mean, scale = self.chroma(inner, z), self.scale_head(inner.detach())
        predicted: Gaussian = self.scale_likelihood(torch.cat([mean, scale - 2.5], dim=1))  # e^-2.5: 20 of 255 levels
        return predicted


@dataclass(frozen=True, slots=True, eq=False)
class GivenLuma:
    """p(y, z | c) of a batch of lumas c: what `vaecore.bound` asks of a model."""

    network: Colorizer
    seen: Seen

    @property
    def likelihood(self) -> SharedGaussianLikelihood:
        """Of the chroma: one scale for all, so that hard images are not given up."""
        return self.network.likelihood

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """A vector."""
        return self.network.latent_channels, 1, 1

    @property
    def prior_given(self) -> DiagonalGaussian:
        """p(z | c) of each image."""
        return bounded_gaussian(self.network.of_prior(self.seen.whole), LEARNED_PRIOR)

    def prior(self, z: Float[Tensor, "B S Z 1 1"]) -> DiagonalGaussian:  # noqa: ARG002 - the same for all samples
        """p(z | c), with an axis for samples."""
        return self.prior_given.for_samples()

    def posterior(self, y: Float[Tensor, "B 2 h w"]) -> DiagonalGaussian:
        """q(z | y, c)."""
        cells = F.adaptive_avg_pool2d(y, CELLS).flatten(1)[:, :, None, None] * CELLS
        seen = torch.cat([cells, self.network.of_whole(self.seen.whole)], dim=1)
        return bounded_gaussian(self.network.of_posterior(seen), LEARNED_PRIOR)

    def decode(self, z: Float[Tensor, "N Z 1 1"]) -> Gaussian:
        """p(y | z, c); where there are several z for each image, those of an image follow each other."""
        seen = self.seen.repeated(len(z) // len(self.seen.whole))
        distribution: Gaussian = self.likelihood(self.network.chroma(self.network.inner(seen, z), z))
        return distribution
