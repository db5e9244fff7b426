"""A memory of good places: how far the features of a place are from the nearest that was seen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.experts.base import Batches, Expert, Sums, to_half
from vaecore.representations import PLACES

KEPT = 4000  # places, drawn evenly over images and places
SEED = 0
LEAST_VARIANCE = 1e-8


class Memory(Expert):
    """The squared distance to the nearest of some kept places, over twice the number of features, each scaled to one.

    Up to a constant it is minus the log-density of a mixture of narrow Gaussians, one around each kept place, in the
    limit where the nearest decides (Bishop 2006, "Pattern recognition and machine learning", section 2.5).

    Source: Roth et al. 2022, "Towards total recall in industrial anomaly detection" (PatchCore), section 3.3; places
    are drawn at random in place of a coreset, which here gave the same results in a hundredth of the time.
    """

    summary = "a memory of good places"
    aspect = "compared with all places of good images"
    view = PLACES
    places: Tensor
    scale: Tensor

    def __init__(self, *, channels: int, size: tuple[int, int], places: int = KEPT) -> None:
        """Make room for `places` places, with `channels` features each; any `size` will do."""
        super().__init__()
        del size
        self.register_buffer("places", torch.zeros(places, channels))
        self.register_buffer("scale", torch.ones(channels))

    def forward(self, y: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h w"]:
        """Squared distance to the nearest kept place, over twice the number of features."""
        rows = y.flatten(2).transpose(1, 2) / self.scale  # (B, places of y, features)
        lengths = self.places.square().sum(dim=1)
        nearest = (lengths - 2 * rows @ self.places.T).amin(dim=2) + rows.square().sum(dim=2)
        distance: Tensor = nearest.clamp(min=0) / (2 * y.shape[1])
        places: Tensor = distance.unflatten(1, y.shape[2:])
        return places

    @torch.no_grad()
    def gather(self, y: Float[Tensor, "B D h w"]) -> Sums:
        """Number of images, mean features and mean squares."""
        return torch.tensor(len(y)), y.mean(dim=(2, 3)).sum(dim=0), y.square().mean(dim=(2, 3)).sum(dim=0)

    @torch.no_grad()
    def fit_to(self, sums: Sums, batches: Batches) -> None:
        """Keep places drawn at random, as many of each batch as its share; again from the first where there are few."""
        count, mean, square = sums[0], sums[1] / sums[0], sums[2] / sums[0]
        self.scale.copy_((square - mean.square()).clamp(min=LEAST_VARIANCE).sqrt())
        generator = torch.Generator().manual_seed(SEED)
        drawn, wanted = [], len(self.places)
        for y in batches():
            rows = (y.flatten(2).transpose(1, 2) / self.scale).flatten(0, 1)
            share = -(-wanted * len(y) // int(count))
            drawn.append(rows[torch.randperm(len(rows), generator=generator)[:share]])
        kept = torch.cat(drawn)
        kept = kept[torch.randperm(len(kept), generator=generator)]
        self.places.copy_(to_half(kept.repeat(-(-wanted // len(kept)), 1)[:wanted]))
