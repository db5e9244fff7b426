"""Categorical: label maps, and images seen as K unordered levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.likelihoods.base import Likelihood


@dataclass(frozen=True, slots=True, eq=False)
class Categorical:
    """y holds class indices 0 .. K-1 (as floats, like every y); logits have a class axis of their own."""

    logits: Float[Tensor, "B K C H W"]

    @property
    def probabilities(self) -> Float[Tensor, "B K C H W"]:
        """P(y = k); sums to 1 over axis 1."""
        return self.logits.softmax(dim=1)

    @property
    def mean(self) -> Float[Tensor, "B C H W"]:
        """The expected index; it means something only where the classes are ordered."""
        return (self.probabilities * self._indices).sum(dim=1)

    @property
    def mode(self) -> Float[Tensor, "B C H W"]:
        """The most probable class."""
        return self.logits.argmax(dim=1).to(self.logits.dtype)

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """Standard deviation of the index; as for the mean, for ordered classes."""
        p = self.probabilities
        first = (p * self._indices).sum(dim=1, keepdim=True)
        return (p * (self._indices - first).square()).sum(dim=1).sqrt()

    @property
    def _indices(self) -> Tensor:
        k = self.logits.shape[1]
        return torch.arange(k, device=self.logits.device, dtype=self.logits.dtype).view(1, k, 1, 1, 1)

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Log-probability of each label, in nats."""
        return self.logits.log_softmax(dim=1).gather(1, y.long().unsqueeze(1)).squeeze(1)


class CategoricalLikelihood(Likelihood):
    """K logits per channel."""

    discrete: ClassVar[bool] = True

    def __init__(self, classes: int) -> None:
        """Set the number of classes, background included."""
        super().__init__()
        self.parameters_per_channel = classes

    def forward(self, parameters: Float[Tensor, "B PC H W"]) -> Categorical:
        """Channels are class-major: all channels of class 0 first."""
        return Categorical(parameters.unflatten(1, (self.parameters_per_channel, -1)))

    def extra_repr(self) -> str:
        """Show the number of classes."""
        return f"classes={self.parameters_per_channel}"
