"""How an image file's numbers become the y of the equation, and back. Part of every exported graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Rounding to levels, a little off the half: resampling often lands exactly on it, and then torch and ONNX Runtime would
# round the last bit's noise to different levels.
OFF_HALF = 0.5137


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """Channels and bit depth of the files that a model is made for."""

    channels: int  # 1 grey, 3 RGB
    bit_depth: int  # 8 or 16

    def __post_init__(self) -> None:
        """Refuse what no decoder delivers."""
        if self.channels not in (1, 3) or self.bit_depth not in (8, 16):
            msg = f"images have 1 or 3 channels of 8 or 16 bits, not {self.channels} of {self.bit_depth}"
            raise ValueError(msg)

    @property
    def maximum(self) -> int:
        """The largest value: white."""
        return int(2**self.bit_depth - 1)

    @property
    def dtype(self) -> torch.dtype:
        """The integer type of the pixels."""
        return torch.uint8 if self.bit_depth == 8 else torch.uint16

    def to_unit(self, image: Tensor) -> Float[Tensor, "B C H W"]:
        """Integer pixels (B, H, W, C) to floats in [0, 1], channels first."""
        return image.to(torch.float32).permute(0, 3, 1, 2) / self.maximum

    def from_unit(self, y: Float[Tensor, "B C H W"]) -> Tensor:
        """Floats in [0, 1] back to integer pixels (B, H, W, C), clipped and rounded to the nearest level."""
        return (y.clamp(0, 1) * self.maximum).round().to(torch.int32).to(self.dtype).permute(0, 2, 3, 1)


def resize(y: Float[Tensor, "B C H W"], size: tuple[int, int]) -> Float[Tensor, "B C H2 W2"]:
    """Bilinear, antialiased when it shrinks; the identity when the size is already right."""
    return F.interpolate(y, size=size, mode="bilinear", antialias=True, align_corners=False)
