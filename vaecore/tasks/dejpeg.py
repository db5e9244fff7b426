"""Dejpeg: y is the image before it was saved as JPEG, c what was read back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.damage.degradations import jpeg_within
from vaecore.tasks.base import Restoration


def saved(y: Float[Tensor, "B C H W"], quality: Float[Tensor, " B"], generator: torch.Generator) -> Tensor:
    """Every image saved at its own quality; every other one as part of a larger one, whose blocks begin elsewhere."""
    device = generator.device
    starts = torch.randint(8, (len(y), 2), generator=generator, device=device)
    starts[torch.rand(len(y), generator=generator, device=device) < 1 / 2] = 0
    found = []
    for index, (down, right) in enumerate(starts.tolist()):
        found.append(jpeg_within(y[index : index + 1], round(float(quality[index])), (down, right)))
    return torch.cat(found)


TASK = Restoration(
    summary="Take the blocks and rings of JPEG out of images.",
    damages={"jpeg": saved},
    level="quality that the JPEG was saved with, 8 to 90",
    strengths=(8.0, 90.0),
    levels=(10.0, 20.0, 40.0),
)
