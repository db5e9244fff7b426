"""Discretised logistic: a true probability for every image level, so that bits per dimension mean bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaecore.likelihoods.base import Likelihood
from vaecore.likelihoods.gaussian import bounded_log_scale


@dataclass(frozen=True, slots=True, eq=False)
class DiscretisedLogistic:
    """y on the grid 0, 1/(L-1), ..., 1: the logistic's mass between the half-way points to the neighbours.

    The two outermost levels take the tails, so that the L probabilities sum to 1.

    Source: Salimans et al. 2017, "PixelCNN++", section 2.1 (one component).
    """

    mean: Float[Tensor, "B C H W"]
    log_scale: Float[Tensor, "B C H W"]
    levels: int = 256

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """pi / sqrt(3) times the logistic's scale (of the continuous distribution)."""
        return self.log_scale.exp() * (math.pi / math.sqrt(3))

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Log-probability of the level, in nats, by an identity that never subtracts two nearly equal numbers.

        sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)).
        """
        inverse_scale = torch.exp(-self.log_scale)
        width = 1 / (self.levels - 1)
        above = (y - self.mean + 0.5 * width) * inverse_scale
        below = (y - self.mean - 0.5 * width) * inverse_scale
        log_below_upper_edge = -F.softplus(-above)
        log_above_lower_edge = -F.softplus(below)
        inside = log_below_upper_edge + log_above_lower_edge + _log1mexp(width * inverse_scale)
        lowest, highest = y < 0.5 * width, y > 1 - 0.5 * width
        return torch.where(lowest, log_below_upper_edge, torch.where(highest, log_above_lower_edge, inside))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0; by its series where x is small, since ONNX has no expm1."""
    small = x.log() - x / 2 + x.square() / 24 - x.pow(4) / 2880
    large = torch.log1p(-torch.exp(-x.clamp(min=0.1)))
    return torch.where(x < 0.1, small, large)


class DiscretisedLogisticLikelihood(Likelihood):
    """Mean and scale for every pixel and channel, over `levels` grey levels."""

    parameters_per_channel: int = 2
    discrete: ClassVar[bool] = True

    def __init__(self, levels: int = 256) -> None:
        """Set the grid: 256 levels for 8-bit images, 65536 for 16-bit ones."""
        super().__init__()
        self.levels = levels

    def forward(self, parameters: Float[Tensor, "B PC H W"]) -> DiscretisedLogistic:
        """First half of the channels: mean; second half: raw log-scale."""
        mean, raw = parameters.chunk(2, dim=1)
        return DiscretisedLogistic(mean, bounded_log_scale(raw), self.levels)

    def extra_repr(self) -> str:
        """Show the grid."""
        return f"levels={self.levels}"
