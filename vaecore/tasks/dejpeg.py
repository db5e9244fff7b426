"""Dejpeg: y is the image before it was saved as JPEG, c what was read back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.degradations import jpeg
from vaecore.tasks.base import Restoration


def saved(y: Float[Tensor, "B C H W"], quality: Float[Tensor, " B"], generator: torch.Generator) -> Tensor:
    """Every image saved at its own quality."""
    del generator  # nothing here is left to chance
    return torch.cat([jpeg(y[index : index + 1], round(float(quality[index]))) for index in range(len(y))])


TASK = Restoration(
    summary="Take the blocks and rings of JPEG out of images.",
    damages={"jpeg": saved},
    level="quality that the JPEG was saved with, 1 to 95",
    strengths=(8.0, 90.0),
    levels=(10.0, 20.0, 40.0),
)
