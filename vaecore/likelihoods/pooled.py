"""What several networks say of the same y, averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.likelihoods.base import Distribution


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Distributions of one y: moments are those of their mixture, log-densities their mean, which is a bound on it."""

    parts: tuple[Distribution, ...]

    @property
    def mean(self) -> Float[Tensor, "B C H W"]:
        """Expected value of y."""
        return torch.stack([part.mean for part in self.parts]).mean(dim=0)

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """Standard deviation of y: of the parts, and between them."""
        second = torch.stack([part.stddev.square() + part.mean.square() for part in self.parts]).mean(dim=0)
        return (second - self.mean.square()).clamp(min=0).sqrt()

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Mean log-density of each dimension, in nats."""
        return torch.stack([part.log_prob(y) for part in self.parts]).mean(dim=0)

    def each(self, change: Callable[[Distribution], Distribution]) -> Pooled:
        """The same of changed parts."""
        return Pooled(tuple(map(change, self.parts)))
