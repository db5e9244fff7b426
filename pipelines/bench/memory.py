"""Nearest neighbours among the features of all good images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.bench.measure import Scored

ENTRIES = 2**24  # of a matrix of distances that is held at once: 64 MiB


class Nearest(NamedTuple):
    """Of each query, nearest first."""

    distance: Tensor  # (Q, k)
    place: Tensor  # (Q, k), its row in the bank


class Bank:
    """Places that are remembered, and the exact Euclidean nearest neighbours among them."""

    def __init__(self, rows: Tensor) -> None:
        """Keep places, (M, D)."""
        self.rows = rows
        # About their mean, squared lengths are no larger than distances need: float32 keeps them apart.
        self._centre = rows.mean(dim=0)
        self._centred = rows - self._centre
        self._squares = self._centred.square().sum(dim=1)

    def __len__(self) -> int:
        """Number of places."""
        return len(self.rows)

    def nearest(self, queries: Tensor, count: int = 1) -> Nearest:
        """Find the neighbours of each query (Q, D)."""
        found = []
        for part in queries.split(max(1, ENTRIES // len(self))):
            # A query's own square orders nothing; the distances themselves are taken afresh, without cancellation.
            order = torch.addmm(self._squares, part - self._centre, self._centred.T, alpha=-2)
            place = order.topk(count, dim=1, largest=False).indices
            found.append((torch.linalg.vector_norm(part[:, None] - self.rows[place], dim=2), place))
        return Nearest(torch.cat([distance for distance, _ in found]), torch.cat([place for _, place in found]))


def rows_of(features: Tensor) -> Tensor:
    """(B, D, h, w) to one row for each place, (B * h * w, D)."""
    return features.movedim(1, -1).flatten(0, 2)


class NearestNeighbour:
    """Distance to the nearest place of any training image; an image scores as its farthest place."""

    def __init__(self, embed: Callable[[Tensor], Tensor], bank: Tensor) -> None:
        """Keep the features of all places, (M, D); `embed` makes features (B, D, h, w) of images (B, C, H, W)."""
        self._embed, self._bank = embed, Bank(bank)

    def __call__(self, image: Tensor) -> Scored:
        """Score a batch."""
        features = self._embed(image)
        maps = self._bank.nearest(rows_of(features)).distance.reshape(len(features), *features.shape[2:])
        return Scored(maps.amax(dim=(1, 2)), maps)
