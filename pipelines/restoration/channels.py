"""What stays true of an image's channels, whatever a network makes of them: grey stays grey, an empty one empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.samples import Samples
from pipelines.images.tiles import Place

TINT = 3  # levels between the channels of a grey image that was stored as YCbCr: each of Cb and Cr is rounded once
_ROWS = 64  # compared at a time: the first of them show that an ordinary photograph is not grey


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """An image, and which part of it a network has to see.

    Attributes:
        pixels: (H, W, C), the image.
        seen: (H, W, C), or (H, W, 1) where all channels that are not constant are alike.
        constant: Of each channel, whether it has one value everywhere.
    """

    pixels: Samples
    seen: Samples
    constant: tuple[bool, ...]

    @classmethod
    def of(cls, pixels: Samples) -> Channels:
        """Look at a whole image: a decision by tile would show as a seam."""
        count = pixels.shape[2]
        constant = tuple(_is_constant(pixels[..., channel]) for channel in range(count))
        first, *others = [channel for channel in range(count) if not constant[channel]] or range(count)
        alike = not all(constant) and all(_are_alike(pixels[..., first], pixels[..., other]) for other in others)
        return cls(pixels, pixels[..., first : first + 1] if alike else pixels, constant)

    def whole(self, made: Samples, place: Place, scale: int) -> Samples:
        """Return what a network made of `seen` with all channels of the image.

        Args:
            made: (h, w, C) or (h, w, 1), a part of the result.
            place: Its rows and columns there, in multiples of `scale`.
            scale: How much larger the result is.
        """
        if made.shape[2] != len(self.constant):
            rows, columns = (slice(part.start // scale, part.stop // scale) for part in place)
            tint = self.pixels[rows, columns].astype(np.int32) - self.seen[rows, columns]
            larger = tint.repeat(scale, axis=0).repeat(scale, axis=1)
            made = (made + larger).clip(0, np.iinfo(made.dtype).max).astype(made.dtype)
        for channel, constant in enumerate(self.constant):
            if constant:
                made[..., channel] = self.pixels[0, 0, channel]
        return made


def is_grey(pixels: NDArray[Any]) -> bool:
    """Return whether the channels of an image (H, W, C) are equal."""
    return all((part == part[..., :1]).all() for part in _bands(pixels))


def _is_constant(channel: Samples) -> bool:
    return all((part == channel[0, 0]).all() for part in _bands(channel))


def _are_alike(first: Samples, second: Samples) -> bool:
    """Return whether two channels are equal but for what rounding of a grey image leaves."""
    pairs = zip(_bands(first), _bands(second), strict=True)
    return all((np.maximum(one, other) - np.minimum(one, other) <= TINT).all() for one, other in pairs)


def _bands(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield some rows at a time: whoever looks for one that differs need not look at all."""
    return (image[top : top + _ROWS] for top in range(0, image.shape[0], _ROWS))
