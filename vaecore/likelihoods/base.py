"""What every likelihood is: a distribution over images, and the head that builds it from a decoder's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from jaxtyping import Float
from torch import Tensor, nn


class Distribution(Protocol):
    """p(y | z, c) with every dimension of y independent given z and c."""

    @property
    def mean(self) -> Float[Tensor, "B C H W"]:
        """Expected value of y, in y's own unit (image value divided by its maximum)."""
        ...

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """Standard deviation of y, same unit."""
        ...

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Log-density (continuous) or log-probability (discrete) of each dimension, in nats."""
        ...


class Likelihood(nn.Module, ABC):
    """The last layer of a decoder: P parameters per channel of y become a distribution.

    A module, since one of them keeps state (the shared scale); most have none.
    """

    parameters_per_channel: int = 1
    discrete: ClassVar[bool] = False  # y lies on the grid of image levels; log_prob is a probability

    @abstractmethod
    def forward(self, parameters: Float[Tensor, "B PC H W"]) -> Distribution:
        """Build the distribution; parameters are stacked channel-wise, all of the first kind first."""

    def observe(self, y: Float[Tensor, "B C H W"], distribution: Distribution) -> None:
        """Update what is computed in closed form rather than learned by gradient (nothing, for most)."""

    def extra_repr(self) -> str:
        """Name the value range assumption where it matters."""
        return ""
