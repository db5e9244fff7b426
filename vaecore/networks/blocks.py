"""The few building blocks that every network shares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.bound import DiagonalGaussian

LOG_SCALES = (-8.0, 4.0)  # bound exp() in half precision; a posterior wider than e^4 priors carries nothing anyway
LEARNED_PRIOR = (-5.0, 2.0)  # where p(z) is learned, too: the KL between the two stays finite


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), 3x3, no normalisation.

    The second convolution starts at zero, so that a deep stack starts as the identity and trains without
    normalisation layers, whose statistics would tie a pixel's score to the rest of its image or batch.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        """Make a block of `width` channels in and out; `dropout` is the share of inner maps left out in training."""
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None  # noqa: S101 - for the type checker
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """Apply the block."""
        y: Tensor = x + self.second(self.dropout(F.silu(self.first(F.silu(x)))))
        return y


class StandardPrior:
    """p(z) = N(0, I)."""

    latent_shape: tuple[int, int, int]

    def prior(self, z: Float[Tensor, "B S Z h w"]) -> DiagonalGaussian:
        """p(z), the same for all samples: (B, 1, Z, h, w)."""
        zeros = torch.zeros_like(z[:, :1])
        return DiagonalGaussian(zeros, zeros)

    def sample_prior(self, count: int, generator: torch.Generator) -> Float[Tensor, "N Z h w"]:
        """Latents drawn from p(z)."""
        return torch.randn((count, *self.latent_shape), generator=generator)


def bounded_gaussian(
    parameters: Float[Tensor, "B P h w"], limits: tuple[float, float] = LOG_SCALES
) -> DiagonalGaussian:
    """A distribution over latents from a network's output: means, then as many log-scales, clamped to the limits."""
    mean, log_scale = parameters.chunk(2, dim=1)
    return DiagonalGaussian(mean, log_scale.clamp(*limits))


def grid_of(size: tuple[int, int], stages: int) -> tuple[int, int]:
    """Height and width after `stages` halvings.

    Raises:
        ValueError: The size is not a multiple of the stride.
    """
    stride = 2**stages
    if size[0] % stride or size[1] % stride:
        msg = f"size {size[0]} x {size[1]} is not a multiple of the stride {stride} ({stages} halvings)"
        raise ValueError(msg)
    return size[0] // stride, size[1] // stride


def downsample(width_in: int, width_out: int) -> nn.Module:
    """Halve height and width: 2x2 pixels become channels, then a 1x1 convolution. Loses nothing on the way."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width_in, width_out, 1))


def upsample(width_in: int, width_out: int) -> nn.Module:
    """Double height and width: the mirror image of `downsample`."""
    return nn.Sequential(nn.Conv2d(width_in, 4 * width_out, 1), nn.PixelShuffle(2))
