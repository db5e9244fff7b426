"""A network that tells real images from made ones, patch by patch."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (32, 64, 128)


class PatchDiscriminator(nn.Module):
    """Images to one output for each patch: high where it looks real.

    With three halvings a patch is 56 pixels wide. No normalisation: the slope is held by a penalty (`adversarial.r1`),
    and an output depends on its own patch alone. What is judged given something else has that as further channels.

    Source: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 3.2.2.
    """

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        """Build the network.

        Args:
            channels: Of the images and what they are given with.
            widths: Channels after each halving.
        """
        super().__init__()
        first = nn.Conv2d(channels, widths[0] // 2, 3, padding=1)  # sees what repeats from pixel to pixel
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2)]
        for narrow, wide in zip((widths[0] // 2, *widths), widths, strict=False):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """Judge images with values in [0, 1], which may leave it a little."""
        judged: Tensor = self.layers(2 * images - 1)
        return judged
