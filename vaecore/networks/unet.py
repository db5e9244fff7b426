"""Encoder and decoder with skips, of plain 3x3 residual blocks: what image-to-image networks are built on.

No normalisation, attention or global pooling: an output pixel depends on the pixels within `halo` of it and on nothing
else, and an image that is cut into tiles with that much margin comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Encoded(NamedTuple):
    """What the way down found."""

    coarsest: Float[Tensor, "B D h w"]
    skips: tuple[Tensor, ...]  # finest first
    first: Float[Tensor, "B D1 h1 w1"]  # the input, unshuffled and convolved once


class UNet(nn.Module):
    """Image to maps at the resolution that its first layer works at.

    Source: the shape is DRUNet's (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior",
    section 4.1), begun by pixel unshuffling (Shi et al. 2016) for speed.
    """

    def __init__(self, *, channels: int, widths: Sequence[int], blocks: Sequence[int], first: int = 2) -> None:
        """Build the network.

        Args:
            channels: Of the image.
            widths: Channels of the inner maps at each resolution, the first at one over `first` of the input's.
            blocks: Residual blocks at each resolution, on the way down and again on the way up; those of the last one
                count once.
            first: Pixels along a side that become channels before anything else.
        """
        super().__init__()
        self.channels, self.first, self.widths, self.blocks = channels, first, tuple(widths), tuple(blocks)
        self.head = nn.Sequential(nn.PixelUnshuffle(first), nn.Conv2d(first**2 * channels, widths[0], 3, padding=1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for wide, narrow, count in zip(widths[1:], widths, blocks, strict=False):
            self.down.append(_Down(wide, narrow, count))
            self.up.append(_Up(wide, narrow, count))
        self.middle = nn.Sequential(*residual_blocks(widths[-1], blocks[-1]))

    @property
    def multiple(self) -> int:
        """Height and width of the input have to be multiples of this."""
        return int(self.first * 2 ** len(self.down))

    def halo_of(self, *, convolutions: int, below: int = 0) -> int:
        """How far a map looks into the input, in pixels of it.

        Args:
            convolutions: Of 3x3 at the finest resolution that come after `decode`.
            below: Residual blocks at the coarsest resolution between `encode` and `decode`.
        """
        # Each 3x3 convolution looks one pixel further at its resolution.
        radius: int = 1 + convolutions
        for level, count in enumerate(self.blocks):
            both_ways = 1 if level == len(self.down) else 2
            radius += 2**level * 2 * count * both_ways
        radius += 2 ** len(self.down) * 2 * below
        # What starts within a cell of the coarsest grid sees all of it.
        reach = self.first * radius + self.multiple
        return int(-(-reach // self.multiple) * self.multiple)

    def encode(self, c: Float[Tensor, "B C H W"]) -> Encoded:
        """The way down, and the blocks at the bottom of it."""
        x = first = self.head(c)
        skips = []
        for down in self.down:
            skip, x = down(x)
            skips.append(skip)
        return Encoded(self.middle(x), tuple(skips), first)

    def decode(self, coarsest: Float[Tensor, "B D h w"], encoded: Encoded) -> Float[Tensor, "B D1 h1 w1"]:
        """The way up, from what may be the coarsest map of `encoded` or another."""
        x = coarsest
        for up, skip in zip(reversed(self.up), reversed(encoded.skips), strict=True):
            x = up(x, skip)
        return x + encoded.first


class _Block(nn.Module):
    """x + conv(relu(conv(x))); the second convolution starts small, so that a deep stack starts near the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight)
        nn.init.kaiming_normal_(self.second.weight, a=10.0)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        added: Tensor = self.second(F.relu(self.first(x)))
        return x + added


class _Down(nn.Module):
    """To half the resolution; what there was before is kept for the way up."""

    def __init__(self, wide: int, narrow: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*residual_blocks(narrow, count))
        self.reduce = nn.Conv2d(narrow, wide, 2, stride=2)

    def forward(self, x: Float[Tensor, "B D h w"]) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, self.reduce(x)


class _Up(nn.Module):
    """Back to twice the resolution, plus what was there on the way down."""

    def __init__(self, wide: int, narrow: int, count: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(nn.Conv2d(wide, 4 * narrow, 1), nn.PixelShuffle(2))
        self.blocks = nn.Sequential(*residual_blocks(narrow, count))

    def forward(self, x: Float[Tensor, "B D h w"], skip: Float[Tensor, "B D2 h2 w2"]) -> Float[Tensor, "B D2 h2 w2"]:
        out: Tensor = self.blocks(self.enlarge(x) + skip)
        return out


def residual_blocks(width: int, count: int) -> list[nn.Module]:
    """Some residual blocks of one width."""
    return [_Block(width) for _ in range(count)]
