"""An image-to-image network with skips: plain 3x3 residual blocks, so that a tile sees what the whole image would show.

No normalisation, attention or global pooling: an output pixel depends on the pixels within `halo` of it and on nothing
else, and an image that is cut into tiles with that much margin comes out the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

USUAL_ERROR = 0.05  # of the range of an image: where the scale starts

# Widths and blocks by size. S trains on a processor in an evening (0.45 M weights), M wants a graphics card (6 M).
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "S": ((32, 56, 80), (1, 1, 2)),
    "M": ((64, 128, 256), (2, 2, 4)),
}


class Restorer(nn.Module):
    """Degraded image to mean and raw log-scale of the restored one, at `upscale` times its size.

    The mean is the input, enlarged, plus what the network adds, which starts at nothing. The scale's head sees the
    features but does not shape them: it costs the mean nothing.

    Source: the shape is DRUNet's (Zhang et al. 2021, "Plug-and-play image restoration with deep denoiser prior",
    section 4.1), begun by pixel unshuffling (Shi et al. 2016) for speed.
    """

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (32, 56, 80),
        blocks: Sequence[int] = (1, 1, 2),
        upscale: int = 1,
    ) -> None:
        """Build the network.

        Args:
            channels: Of the degraded image, the first `outputs` of them being what is restored.
            outputs: Channels of the restored image.
            widths: Channels of the inner maps at each resolution, the first at half of the input's; at the input's own
                where it is enlarged.
            blocks: Residual blocks at each resolution, on the way down and again on the way up; those of the last one
                count once.
            upscale: How much larger the restored image is: 1, 2, 3 or 4.
        """
        super().__init__()
        self.channels, self.outputs, self.upscale, self.blocks = channels, outputs, upscale, tuple(blocks)
        # What is to be enlarged is small, and has no detail to spare: its inner maps begin at its own size.
        self.first = 1 if upscale > 1 else 2
        self.head = nn.Sequential(
            nn.PixelUnshuffle(self.first), nn.Conv2d(self.first**2 * channels, widths[0], 3, padding=1)
        )
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for wide, narrow, count in zip(widths[1:], widths, blocks, strict=False):
            self.down.append(_Down(wide, narrow, count))
            self.up.append(_Up(wide, narrow, count))
        self.middle = nn.Sequential(*_blocks(widths[-1], blocks[-1]))
        factor = self.first * upscale
        mean, scale = (nn.Conv2d(widths[0], outputs * factor**2, 3, padding=1) for _ in range(2))
        for last, start in ((mean, 0.0), (scale, math.log(USUAL_ERROR))):
            nn.init.zeros_(last.weight)
            assert last.bias is not None  # noqa: S101 - for the type checker
            nn.init.constant_(last.bias, start)
        self.tail = nn.Sequential(mean, nn.PixelShuffle(factor))
        before = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.scale = nn.Sequential(before, nn.ReLU(), scale, nn.PixelShuffle(factor))

    @property
    def multiple(self) -> int:
        """Height and width of the input have to be multiples of this."""
        return int(self.first * 2 ** len(self.down))

    @property
    def halo(self) -> int:
        """How far the restored image looks into the input, in pixels of the input."""
        # Each 3x3 convolution looks one pixel further at its resolution; the last two are the scale head's.
        radius = 1 + 2  # head and scale head
        for level, count in enumerate(self.blocks):
            both_ways = 1 if level == len(self.down) else 2
            radius += 2**level * 2 * count * both_ways
        # What starts within a cell of the coarsest grid sees all of it.
        reach = self.first * radius + self.multiple
        return -(-reach // self.multiple) * self.multiple

    def forward(self, c: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P H2 W2"]:
        """Parameters of p(y | c): `outputs` channels of means, then as many of raw log-scales."""
        x = first = self.head(c)
        skips = []
        for down in self.down:
            skip, x = down(x)
            skips.append(skip)
        x = self.middle(x)
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = up(x, skip)
        x = x + first
        known = c[:, : self.outputs]
        if self.upscale > 1:
            # "Antialiased" chooses the kernel, which is then the one that pictures are made smaller with (a = -0.5).
            known = F.interpolate(known, scale_factor=self.upscale, mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([known + self.tail(x), self.scale(x.detach())], dim=1)


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
        self.blocks = nn.Sequential(*_blocks(narrow, count))
        self.reduce = nn.Conv2d(narrow, wide, 2, stride=2)

    def forward(self, x: Float[Tensor, "B D h w"]) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, self.reduce(x)


class _Up(nn.Module):
    """Back to twice the resolution, plus what was there on the way down."""

    def __init__(self, wide: int, narrow: int, count: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(nn.Conv2d(wide, 4 * narrow, 1), nn.PixelShuffle(2))
        self.blocks = nn.Sequential(*_blocks(narrow, count))

    def forward(self, x: Float[Tensor, "B D h w"], skip: Float[Tensor, "B D2 h2 w2"]) -> Float[Tensor, "B D2 h2 w2"]:
        out: Tensor = self.blocks(self.enlarge(x) + skip)
        return out


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [_Block(width) for _ in range(count)]
