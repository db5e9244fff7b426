"""Bernoulli: black-and-white images, masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaecore.likelihoods.base import Likelihood


@dataclass(frozen=True, slots=True, eq=False)
class Bernoulli:
    """y in {0, 1}, by its logits.

    For y strictly between 0 and 1 this is the cross-entropy, which is not a normalised likelihood (Loaiza-Ganem and
    Cunningham 2019, "The continuous Bernoulli"): binarise such data first.
    """

    logits: Float[Tensor, "B C H W"]

    @property
    def mean(self) -> Float[Tensor, "B C H W"]:
        """P(y = 1)."""
        return self.logits.sigmoid()

    @property
    def stddev(self) -> Float[Tensor, "B C H W"]:
        """sqrt(p (1 - p))."""
        p = self.mean
        return (p * (1 - p)).sqrt()

    def log_prob(self, y: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """y log p + (1 - y) log(1 - p), in nats."""
        # Not by logsigmoid: an exported graph takes the logarithm of a sigmoid that has become 0.
        return -y * F.softplus(-self.logits) - (1 - y) * F.softplus(self.logits)


class BernoulliLikelihood(Likelihood):
    """One logit per channel."""

    parameters_per_channel: int = 1
    discrete: ClassVar[bool] = True

    def forward(self, parameters: Float[Tensor, "B C H W"]) -> Bernoulli:
        """The decoder's output is the logit."""
        return Bernoulli(parameters)
