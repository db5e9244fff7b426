"""A small VAE with a coarse latent, for features: a latent that cannot copy a small defect cannot explain it away."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods.base import Distribution, Likelihood
from vaecore.networks.blocks import StandardPrior, bounded_gaussian, grid_of


class BottleneckVAE(StandardPrior, nn.Module):
    """One 3x3 convolution for each halving on either side of a narrow grid of latents; p(z) is standard normal."""

    latent_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        likelihood: Likelihood,
        latent_channels: int = 32,
        width: int = 192,
        stages: int = 2,
    ) -> None:
        """Build the network.

        Args:
            channels: Of y.
            size: Height and width of y; each a multiple of `2**stages`.
            likelihood: Head that turns the decoder's output into p(y | z).
            latent_channels: Latents in each cell of the grid.
            width: Channels of every inner map.
            stages: Halvings of y's grid; none: every place is a latent vector's own, as where y is a single place.

        Raises:
            ValueError: The size is not a multiple of the stride.
        """
        super().__init__()
        self.likelihood = likelihood
        self.latent_shape = (latent_channels, *grid_of(size, stages))
        encoder: list[nn.Module] = []
        for stage in range(stages):
            encoder += [nn.Conv2d(width if stage else channels, width, 3, stride=2, padding=1), nn.SiLU()]
        if stages == 0:
            encoder = [nn.Conv2d(channels, width, 1), nn.SiLU()]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(width, 2 * latent_channels, 1))
        decoder: list[nn.Module] = [nn.Conv2d(latent_channels, width, 1), nn.SiLU()]
        for _ in range(stages - 2):
            decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
        if stages > 1:
            decoder += [nn.Upsample(scale_factor=2)]
        # The last 3x3 runs at half of y's resolution, twice as wide: half the time of the full one, and better.
        outputs = channels * likelihood.parameters_per_channel
        if stages == 0:
            self.decoder = nn.Sequential(*decoder, nn.Conv2d(width, outputs, 1))
            return
        decoder += [nn.Conv2d(width, 2 * width, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * width, 4 * outputs, 1)]
        self.decoder = nn.Sequential(*decoder, nn.PixelShuffle(2))

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        return bounded_gaussian(self.encoder(y))

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        distribution: Distribution = self.likelihood(self.decoder(z))
        return distribution
