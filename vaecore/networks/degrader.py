"""A learned damage: from clean images and noise to what damaged ones look like."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 16
SPREAD = 5  # pixels along a side that a grain of noise may spread over
AROUND = 15  # pixels along a side over which nothing changes on average


class Degrader(nn.Module):
    """c = y + change(y) + mix(scale(y) * noise).

    The change is what is not left to chance, such as blur. It is none on average over a few pixels around: two folders
    of different images differ in brightness and colour by chance, and a cast would be learned that no damage has made.
    Noise has a scale for each pixel and channel that depends on its colour, and may spread over neighbours and
    channels. It starts as white noise of one scale, and holds nothing that could hide an image in the noise (Chu et al.
    2017, "CycleGAN, a master of steganography"): every part looks a few pixels far.

    Source: the generator of Jang et al. 2021, "C2N: practical generative noise modeling for real-world denoising",
    section 3, without its deep stacks; that damage needs noise as an input of its own is Almahairi et al. 2018,
    "Augmented CycleGAN".
    """

    def __init__(self, channels: int, scale: float) -> None:
        """Build the network.

        Args:
            channels: Of the images.
            scale: Standard deviation of the noise that it starts with, as a share of the range of values.
        """
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            last := nn.Conv2d(WIDTH, channels, 3, padding=1, padding_mode="reflect"),
        )
        self.log_scale = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1), nn.ReLU(), scales := nn.Conv2d(WIDTH, channels, 1)
        )
        self.mix = nn.Conv2d(channels, channels, SPREAD, padding=SPREAD // 2, padding_mode="reflect", bias=False)
        for layer, bias in ((last, 0.0), (scales, math.log(scale))):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None  # noqa: S101 - for the type checker
            nn.init.constant_(layer.bias, bias)
        nn.init.dirac_(self.mix.weight)

    def changed(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What is added that is not left to chance."""
        change: Tensor = self.change(y)
        return change - F.avg_pool2d(change, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)

    def forward(self, y: Float[Tensor, "B C H W"], noise: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Damage clean images, with standard normal noise given from outside."""
        grains = self.mix(torch.exp(self.log_scale(y)) * noise)
        damaged: Tensor = y + self.changed(y) + grains
        return damaged
