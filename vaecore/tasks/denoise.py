"""Denoise: y is the clean image, c the same with noise of unknown strength; the noise may be of several kinds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.damage.degradations import gaussian_noise, jpeg, poisson_noise, speckle
from vaecore.tasks.base import Restoration


def mixed(y: Float[Tensor, "B C H W"], sigma: Float[Tensor, " B"], generator: torch.Generator) -> Tensor:
    """Noise as cameras and scanners make it: each image gets one kind, and every fourth is saved as JPEG on top."""
    kinds = (gaussian_noise, gaussian_noise, poisson_noise, speckle)
    device = generator.device
    chosen = torch.randint(len(kinds), (len(y),), generator=generator, device=device)
    saved = torch.rand(len(y), generator=generator, device=device) < 1 / 4
    quality = torch.randint(40, 96, (len(y),), generator=generator, device=device)
    damaged = []
    for index in range(len(y)):
        one = kinds[int(chosen[index])](y[index : index + 1], sigma[index : index + 1], generator)
        damaged.append(jpeg(one, int(quality[index])) if saved[index] else one)
    return torch.cat(damaged)


TASK = Restoration(
    summary="Take noise out of images, of whatever strength.",
    damages={"mixed": mixed, "gaussian": gaussian_noise, "poisson": poisson_noise, "speckle": speckle},
    level="standard deviation of the noise at middle grey, in 8-bit levels",
    strengths=(0.0, 55.0),
    levels=(15.0, 25.0, 50.0),
)
