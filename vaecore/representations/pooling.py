"""From nats at each place to one score for the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Pooling:
    """How places become a score: the mean of all, the mean of the highest share, or a soft maximum."""

    kind: Literal["mean", "top", "soft"] = "mean"
    value: float = 1.0  # top: share of the places; soft: sharpness, 1 over nats per dimension

    def __post_init__(self) -> None:
        """Refuse what is no pooling."""
        if not (self.value > 0 and (self.kind != "top" or self.value <= 1)):
            msg = (
                f"pooling '{self.kind}' cannot have {self.value:g}: it takes a share in (0, 1], or a sharpness above 0"
            )
            raise ValueError(msg)

    def __call__(self, places: Float[Tensor, "B h w"]) -> Float[Tensor, " B"]:
        """Pool."""
        flat = places.flatten(1)
        if self.kind == "mean":
            return flat.mean(dim=1)
        if self.kind == "top":
            count = max(1, round(self.value * flat.shape[1]))
            return flat.topk(count, dim=1).values.mean(dim=1)
        return (torch.logsumexp(self.value * flat, dim=1) - math.log(flat.shape[1])) / self.value

    def __str__(self) -> str:
        """For metadata and messages."""
        names = {"mean": "mean over places", "top": f"mean over the highest {self.value:.3g} of the places"}
        return names.get(self.kind, f"soft maximum over places, sharpness {self.value:.3g}")


# What is tried on held-out good images with synthetic defects; from the whole image to a few of its places.
POOLINGS = (
    Pooling(),
    *(Pooling("top", share) for share in (0.3, 0.1, 0.03, 0.01, 0.003)),
    *(Pooling("soft", sharpness) for sharpness in (0.5, 2.0)),
)


class PlaceStatistics(nn.Module):
    """Mean and spread of good images' values at each place: what is usual differs over an aligned object.

    Without statistics (a texture: every place is like every other) it changes nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Float[Tensor, "h w"] | None = None, scale: Float[Tensor, "h w"] | None = None) -> None:
        """Keep the statistics; none means zero and one everywhere."""
        super().__init__()
        self.used = mean is not None
        self.register_buffer("mean", torch.zeros(()) if mean is None else mean)
        self.register_buffer("scale", torch.ones(()) if scale is None else scale)

    def forward(self, places: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        """Standardise each place."""
        return (places - self.mean) / self.scale if self.used else places


CONCENTRATION_STEPS = 10
FEWEST_TRIMMED = 30  # pairs; of fewer, all are taken


class Typicality(nn.Module):
    """How far an image's likelihood and complexity, taken together, lie from those of good images.

    A simple image is likely whatever it shows, a complex one unlikely: what gives a foreign image away is a likelihood
    that does not go with its complexity, or a complexity that good images never have. In standard deviations
    (Mahalanobis distance), to either side.

    Source: Serra et al. 2020 for the pair; Nalisnick et al. 2019, "Detecting out-of-distribution inputs to deep
    generative models using typicality", for both sides.
    """

    mean: Tensor
    precision: Tensor

    def __init__(self, pairs: Float[Tensor, "N 2"]) -> None:
        """Fit to good images' pairs (nats per dimension each), at least three.

        One odd image among them would widen everything: mean and covariance are of the closest nine tenths, found in
        concentration steps (Rousseeuw and Van Driessen 1999, "A fast algorithm for the minimum covariance determinant
        estimator"), and scaled so that the median distance is that of a normal distribution.
        """
        super().__init__()
        rows = kept = pairs.double()
        for _ in range(CONCENTRATION_STEPS):
            mean = kept.mean(dim=0)
            precision = torch.linalg.inv(torch.cov(kept.T) + 1e-6 * torch.eye(2, dtype=torch.float64))
            squares = ((rows - mean) @ precision * (rows - mean)).sum(dim=1)
            if len(rows) >= FEWEST_TRIMMED:
                kept = rows[squares <= squares.quantile(0.9)]
        # Images that are all alike have no spread: a difference of a thousandth of a nat is none.
        covariance = torch.linalg.inv(precision) * squares.median() / (2 * math.log(2)) + 1e-6 * torch.eye(2)
        self.register_buffer("mean", mean.float())
        self.register_buffer("precision", torch.linalg.inv(covariance).float())

    def forward(self, pairs: Float[Tensor, "B 2"]) -> Float[Tensor, " B"]:
        """Distance of each pair."""
        error = pairs - self.mean
        return (error @ self.precision * error).sum(dim=1).clamp(min=0).sqrt()
