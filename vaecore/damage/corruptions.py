"""Damage to y while a network is trained: what it is shown is spoilt, what it has to find likely is not.

A posterior of a damaged copy still gives a bound on log p(y) (any q(z) does), and a network trained so cannot copy what
it is shown. Plain functions of a batch and a generator: an equal generator gives equal damage.

Source: Im, Ahn, Memisevic, Bengio 2017, "Denoising criterion for variational auto-encoding framework", eq. 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Corruption = Callable[[Tensor, torch.Generator], Tensor]

HIDDEN_SHARE = 0.25
PATCH_SIDES = (0.1, 0.5)  # of a pasted patch, as shares of the image's
PERLIN_GRIDS = (3, 9)  # cells along a side of the random field: large and small blobs
PERLIN_SHARE = 0.2  # of the places are replaced


def noise(y: Float[Tensor, "B C H W"], generator: torch.Generator) -> Float[Tensor, "B C H W"]:
    """Add Gaussian noise as strong as the batch itself varies."""
    return y + y.std() * _normal(y, y.shape, generator)


def hide(y: Float[Tensor, "B C H W"], generator: torch.Generator) -> Float[Tensor, "B C H W"]:
    """Replace a quarter of the cells of a 4 x 4 grid by each channel's mean: the rest has to tell what was there."""
    cells = torch.rand((len(y), 1, 4, 4), generator=generator) < HIDDEN_SHARE
    hidden = F.interpolate(cells.float(), size=y.shape[2:]).to(y.device)
    return torch.lerp(y, y.mean(dim=(2, 3), keepdim=True).expand_as(y), hidden)


def cut_paste(y: Float[Tensor, "B C H W"], generator: torch.Generator) -> Float[Tensor, "B C H W"]:
    """Paste a rectangle of another image of the batch at another place.

    Source: Li et al. 2021, "CutPaste: Self-supervised learning for anomaly detection and localization", section 2.1.
    """
    height, width = y.shape[2:]
    low, high = PATCH_SIDES
    h, w = (
        max(1, round(side * float(torch.empty(()).uniform_(low, high, generator=generator))))
        for side in (height, width)
    )
    top, left, from_top, from_left = (
        int(torch.randint(room + 1, (), generator=generator)) for room in (height - h, width - w) * 2
    )
    damaged = y.clone()
    damaged[:, :, top : top + h, left : left + w] = y.roll(1, dims=0)[
        :, :, from_top : from_top + h, from_left : from_left + w
    ]
    return damaged


def perlin(y: Float[Tensor, "B C H W"], generator: torch.Generator) -> Float[Tensor, "B C H W"]:
    """Replace blobs of a smooth random field by another image of the batch.

    Source: Zavrtanik, Kristan, Skocaj 2021, "DRAEM", section 3.3; the field is value noise instead of gradient noise.
    """
    field = torch.zeros(len(y), 1, *y.shape[2:])
    for cells in PERLIN_GRIDS:
        grid = torch.randn((len(y), 1, cells, cells), generator=generator)
        field = field + F.interpolate(grid, size=y.shape[2:], mode="bicubic", align_corners=True)
    level = field.flatten(1).quantile(1 - PERLIN_SHARE, dim=1)[:, None, None, None]
    return torch.where((field > level).to(y.device), y.roll(1, dims=0), y)


CORRUPTIONS: dict[str, Corruption] = {"noise": noise, "hide": hide, "cut_paste": cut_paste, "perlin": perlin}


def _normal(like: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator).to(like.device)
