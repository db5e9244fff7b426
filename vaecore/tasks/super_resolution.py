"""Super-resolve: y is the image, c the same at a half, a third or a quarter of its size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.damage.degradations import smaller
from vaecore.tasks.base import Restoration


def bicubic(y: Float[Tensor, "B C H W"], scale: Float[Tensor, " B"], generator: torch.Generator) -> Tensor:
    """Every image at one over the scale, which is the same for all of a batch."""
    del generator  # nothing here is left to chance
    return smaller(y, int(scale[0]))


TASK = Restoration(
    summary="Make images larger, with the detail that a larger picture would show.",
    damages={"bicubic": bicubic},
    level="how much larger the result is",
    strengths=(2.0, 2.0),
    levels=(2.0,),
    scales=(2, 3, 4),
    luma=True,
)
