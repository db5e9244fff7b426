"""Mean and covariance of the channels of maps, gone through a batch at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Sums over every place that was added, in double precision."""

    def __init__(self, channels: int) -> None:
        """Start with no place."""
        self._places = 0
        self._total = torch.zeros(channels, dtype=torch.float64)
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, maps: Float[Tensor, "B D h w"]) -> None:
        """Take in every place of some maps."""
        rows = maps.transpose(0, 1).flatten(1)
        self._places, self._total = self._places + rows.shape[1], self._total + rows.double().sum(dim=1)
        self._products = self._products + (rows @ rows.T).double()  # a batch in single precision: twice as fast

    @property
    def mean(self) -> Float[Tensor, " D"]:
        """Of each channel."""
        return self._total / self._places

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Of all places, divided by their number."""
        return self._products / self._places - torch.outer(self.mean, self.mean)
