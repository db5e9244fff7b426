"""Where in an image the anomaly is: the same prediction as the score's, under a scale that does not shrug."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from vaecore.bound import BoundMaps, sampled_log_prob
from vaecore.likelihoods.gaussian import Gaussian

LEAST_VARIANCE = 1e-8


class Localisation(nn.Module):
    """Distortion by dimension at the geometric mean of two scales: that predicted there, and the usual one.

    A scale for each place makes the bound tell good images from bad ones. But at a defect the network expects anything:
    it predicts a large scale there, and the defect pales. The usual scale alone forgets that some places are busy.
    """

    usual: Tensor

    def __init__(self, squared_error: Float[Tensor, " C"]) -> None:
        """Keep each channel's usual log-scale, from its mean squared error over good images."""
        super().__init__()
        self.register_buffer("usual", 0.5 * squared_error.clamp(min=LEAST_VARIANCE).log()[:, None, None])

    def forward(
        self, y: Float[Tensor, "B C h w"], maps: BoundMaps, samples: int, weight: Float[Tensor, "C 1 1"] | None
    ) -> Float[Tensor, "B C h w"]:
        """Nats, of a bound with so many samples whose p(y|z) is a Gaussian with a scale for each place."""
        p_y = maps.likelihood
        if not isinstance(p_y, Gaussian):
            msg = f"only a Gaussian's scale can be tempered, not that of {type(p_y).__name__}"
            raise TypeError(msg)
        tempered = replace(p_y, log_scale=0.5 * (p_y.log_scale + self.usual))
        return -sampled_log_prob(tempered, y, samples, weight).mean(dim=1)
