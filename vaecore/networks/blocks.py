"""The few building blocks that every network shares."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), 3x3, no normalisation.

    The second convolution starts at zero, so that a deep stack starts as the identity and trains without
    normalisation layers, whose statistics would tie a pixel's score to the rest of its image or batch.
    """

    def __init__(self, width: int) -> None:
        """Make a block of `width` channels in and out."""
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None  # noqa: S101 - for the type checker
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """Apply the block."""
        y: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return y


def downsample(width_in: int, width_out: int) -> nn.Module:
    """Halve height and width: 2x2 pixels become channels, then a 1x1 convolution. Loses nothing on the way."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width_in, width_out, 1))


def upsample(width_in: int, width_out: int) -> nn.Module:
    """Double height and width: the mirror image of `downsample`."""
    return nn.Sequential(nn.Conv2d(width_in, 4 * width_out, 1), nn.PixelShuffle(2))
