"""An image-to-image network that gives each restored pixel a mean and a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.networks.unet import UNet

USUAL_ERROR = 0.05  # of the range of an image: where the scale starts

# Widths and blocks by size, with weights and multiplications for each pixel of what keeps its size. S trains on a
# processor in an evening (0.45 M, 26 k), S+ in a night (3.2 M, 72 k), M wants a graphics card (6.6 M, 244 k).
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "S": ((32, 56, 80), (1, 1, 2)),
    "S+": ((48, 80, 128, 160), (1, 1, 2, 3)),
    "M": ((64, 128, 256), (2, 2, 4)),
}


class Restorer(UNet):
    """Degraded image to mean and raw log-scale of the restored one, at `upscale` times its size.

    The mean is the input, enlarged, plus what the network adds, which starts at nothing. The scale's head sees the
    features but does not shape them: it costs the mean nothing.
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
            blocks: Residual blocks at each resolution; see `UNet`.
            upscale: How much larger the restored image is: 1, 2, 3 or 4.
        """
        # What is to be enlarged is small, and has no detail to spare: its inner maps begin at its own size.
        super().__init__(channels=channels, widths=widths, blocks=blocks, first=1 if upscale > 1 else 2)
        self.outputs, self.upscale = outputs, upscale
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
    def halo(self) -> int:
        """How far the restored image looks into the input, in pixels of the input."""
        return self.halo_of(convolutions=2)  # of the scale's head, which is the longer one

    def forward(self, c: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P H2 W2"]:
        """Parameters of p(y | c): `outputs` channels of means, then as many of raw log-scales."""
        encoded = self.encode(c)
        x = self.decode(encoded.coarsest, encoded)
        return torch.cat([self.enlarged(c) + self.tail(x), self.scale(x.detach())], dim=1)

    def enlarged(self, c: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H2 W2"]:
        """What is to be restored, at the size of the restored image."""
        known = c[:, : self.outputs]
        if self.upscale == 1:
            return known
        # "Antialiased" chooses the kernel, which is then the one that pictures are made smaller with (a = -0.5).
        return F.interpolate(known, scale_factor=self.upscale, mode="bicubic", align_corners=False, antialias=True)
