"""The y that is the image itself."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.representations.base import Representation
from vaecore.representations.exposure import USUAL_BRIGHTNESS, USUAL_CONTRAST, exposure, standardise_exposure
from vaecore.representations.image_format import OFF_HALF, resize


class Pixels(Representation):
    """y is the image itself at the working size."""

    drawable = True

    def __init__(
        self, *, channels: int, size: tuple[int, int], levels: int | None = None, standardise: bool = False
    ) -> None:
        """Choose the working size.

        Args:
            channels: Of the image.
            size: Height and width.
            levels: Largest level where the likelihood is discrete: y is then put on the grid of levels; with 1, it is
                black or white.
            standardise: Give every image the same brightness and contrast first, where the exposure says nothing.

        Raises:
            ValueError: Levels, but standardised images have none.
        """
        super().__init__()
        if standardise and levels is not None:
            msg = "a discrete likelihood is of levels, and a standardised image has none"
            raise ValueError(msg)
        self.channels, self.size, self.input_size = channels, size, size
        self.levels, self.standardises = levels, standardise

    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Resize."""
        return resize(image, self.size)

    def normalise(self, extracted: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Round to levels where there are any, or set brightness and contrast."""
        if self.standardises:
            return standardise_exposure(extracted)
        return extracted if self.levels is None else torch.floor(extracted * self.levels + OFF_HALF) / self.levels

    def sample_y(self, extracted: Float[Tensor, "B C h w"], generator: torch.Generator) -> Float[Tensor, "B C h w"]:
        """Return y as training is given it: where y is black or white, a shade of grey is the probability of white.

        Source: Salakhutdinov and Murray 2008, "On the quantitative analysis of deep belief networks", section 5.
        """
        if self.levels != 1:
            return self.normalise(extracted)
        return torch.bernoulli(extracted.clamp(0, 1), generator=generator)

    def sum_by_place(self, values: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w"]:
        """Sum over channels."""
        return values.sum(dim=1)

    def draw(
        self, mean: Float[Tensor, "B C h w"], stddev: Float[Tensor, "B C h w"], image: Float[Tensor, "B C H W"]
    ) -> tuple[Tensor, Tensor]:
        """Resize, and give the picture the image's own brightness and contrast again."""
        if self.standardises:
            brightness, contrast = exposure(self.extract(image))
            mean = (mean - USUAL_BRIGHTNESS) * (contrast / USUAL_CONTRAST) + brightness
            stddev = stddev * (contrast / USUAL_CONTRAST)
        full_size = (image.shape[2], image.shape[3])
        return resize(mean, full_size), resize(stddev, full_size)
