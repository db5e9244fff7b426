"""A convolutional VAE: any image size that is a multiple of its stride, latents on a grid or in one vector."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods.base import Distribution, Likelihood
from vaecore.networks.blocks import ResidualBlock, StandardPrior, bounded_gaussian, downsample, grid_of, upsample


class ConvVAE(StandardPrior, nn.Module):
    """Encoder q(z|y) and decoder p(y|z), mirror images of each other; p(z) is standard normal."""

    latent_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        likelihood: Likelihood,
        latent_channels: int = 16,
        latent_grid: bool = True,
        width: int = 16,
        stages: int = 4,
        blocks: int = 1,
        dropout: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            channels: Channels of the image, 1 or 3.
            size: Height and width that it works at; each a multiple of `2**stages`.
            likelihood: Head that turns the decoder's output into p(y | z).
            latent_channels: Latents for each cell of the grid, or in the vector.
            latent_grid: True: one cell for `2**stages` pixels (inspection images). False: a single vector, so that
                two latents can be drawn on a page (MNIST in the lectures).
            width: Channels at half resolution; doubled at each stage up to four times.
            stages: Halvings of the resolution.
            blocks: Residual blocks in each stage.
            dropout: Share of the inner maps of each block that is left out in training (Srivastava et al. 2014).

        Raises:
            ValueError: The size is not a multiple of the stride.
        """
        super().__init__()
        self.likelihood = likelihood
        grid = grid_of(size, stages)
        widths = [width * min(2**stage, 4) for stage in range(stages)]
        top = widths[-1]

        # No convolution runs at full resolution: half the time of a CPU would go there, for little.
        encoder: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1)]
        encoder += [ResidualBlock(width, dropout) for _ in range(blocks)]
        for narrow, wide in pairwise(widths):
            encoder += [downsample(narrow, wide), *(ResidualBlock(wide, dropout) for _ in range(blocks))]
        self.encoder = nn.Sequential(*encoder, nn.SiLU())

        decoder: list[nn.Module] = [ResidualBlock(top, dropout) for _ in range(blocks)]
        for wide, narrow in pairwise(reversed(widths)):
            decoder += [upsample(wide, narrow), *(ResidualBlock(narrow, dropout) for _ in range(blocks))]
        outputs = channels * likelihood.parameters_per_channel
        self.decoder = nn.Sequential(
            *decoder, nn.SiLU(), nn.Conv2d(width, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)
        )

        if latent_grid:
            self.latent_shape = (latent_channels, *grid)
            self.to_posterior: nn.Module = nn.Conv2d(top, 2 * latent_channels, 1)
            self.from_latent: nn.Module = nn.Conv2d(latent_channels, top, 1)
        else:
            self.latent_shape = (latent_channels, 1, 1)
            places = top * grid[0] * grid[1]
            self.to_posterior = nn.Sequential(
                nn.Flatten(), nn.Linear(places, 2 * latent_channels), nn.Unflatten(1, (2 * latent_channels, 1, 1))
            )
            self.from_latent = nn.Sequential(
                nn.Flatten(), nn.Linear(latent_channels, places), nn.Unflatten(1, (top, *grid))
            )

    def posterior(self, y: Float[Tensor, "B C H W"]) -> DiagonalGaussian:
        """q(z | y)."""
        return bounded_gaussian(self.to_posterior(self.encoder(2 * y - 1)))

    def decode(self, z: Float[Tensor, "B Z h w"]) -> Distribution:
        """p(y | z)."""
        distribution: Distribution = self.likelihood(self.decoder(self.from_latent(z)))
        return distribution
