"""What the y of the bound is made of: an image's pixels, or frozen features of them.

A bound compares images under one model and one representation, never models with different ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Representation(nn.Module, ABC):
    """y = normalise(extract(image)): the two halves are apart because training caches what the first one gives."""

    channels: int  # of y
    size: tuple[int, int]  # height and width of y's grid
    input_size: tuple[int, int]  # height and width that images are resized to
    drawable: bool  # y is an image: its reconstruction can be looked at
    standardises: bool  # every image gets the same brightness and contrast first

    @property
    def dims(self) -> int:
        """D, the number of dimensions of y."""
        return self.channels * self.size[0] * self.size[1]

    @abstractmethod
    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The part without learned numbers, from an image in [0, 1] of any size."""

    @abstractmethod
    def normalise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """The rest of the way to y."""

    def sample_y(self, extracted: Float[Tensor, "B D h w"], generator: torch.Generator) -> Float[Tensor, "B D h w"]:
        """Return y as training is given it, where chance has a part in that."""
        del generator
        return self.normalise(extracted)

    def summarise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C"]:
        """What an image shows on average, wherever it shows it."""
        return self.normalise(extracted).mean(dim=(2, 3))

    @abstractmethod
    def sum_by_place(self, values: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Sum values of y's dimensions by place, on the finest grid that y knows; the total stays the same."""

    def draw(
        self, mean: Float[Tensor, "B C h w"], stddev: Float[Tensor, "B C h w"], image: Float[Tensor, "B C H W"]
    ) -> tuple[Tensor, Tensor]:
        """Mean and scale of p(y|z) as a picture of `image`, in [0, 1] and at its size; only where y is drawable."""
        del image
        return mean, stddev

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """y of images in [0, 1]."""
        return self.normalise(self.extract(image))
