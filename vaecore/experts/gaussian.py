"""One Gaussian for all places: the simplest density of features, for textures that are nowhere special."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.experts.base import SINGLE_PLACES, Batches, Expert, Sums
from vaecore.representations import FINE

RIDGE = 1e-4  # of the mean variance: what good images hardly ever do counts as much as what they do all the time
LEAST_VARIANCE = 1e-8


class SharedGaussian(Expert):
    """One mean and covariance for the features of every place; places are independent.

    The features are as they are, not averaged: a defect of a few pixels is not smoothed away. Neighbouring finer places
    are features of one coarser place, so that what goes together is known.

    Source: Lee, Lee, Lee, Shin 2018, "A simple unified framework for detecting out-of-distribution samples", eq. 2; by
    place as in Rippel, Mertens, Merhof 2021, "Modeling the distribution of normal data in pre-trained deep features".
    """

    summary = "one Gaussian for all places"
    aspect = "in texture"
    view = FINE
    areas = SINGLE_PLACES
    offset: Tensor
    whitening: Tensor

    def __init__(self, *, channels: int, size: tuple[int, int]) -> None:
        """Make room for a fitted model of maps of `channels` features; any `size` will do."""
        super().__init__()
        del size
        self.register_buffer("offset", torch.zeros(channels, 1))
        self.register_buffer("whitening", torch.zeros(channels, channels))

    def forward(self, y: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h w"]:
        """Minus the log-density of each place, up to a constant."""
        distance: Tensor = (self.whitening @ (y.flatten(2) - self.offset)).square().sum(dim=1)
        places: Tensor = (0.5 * distance).unflatten(1, y.shape[2:])
        return places

    @torch.no_grad()
    def gather(self, y: Float[Tensor, "B D h w"]) -> Sums:
        """Number of places, sums and products of their features."""
        rows = y.transpose(0, 1).flatten(1)
        products = (rows @ rows.T).double()  # a batch in single precision: twice as fast
        return torch.tensor(rows.shape[1]), rows.double().sum(dim=1), products

    @torch.no_grad()
    def fit_to(self, sums: Sums, batches: Batches) -> None:  # noqa: ARG002 - the sums say it all
        """Find mean and covariance."""
        places, total, products = sums
        mean = total / places
        covariance = products / places - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=LEAST_VARIANCE).sqrt()
        correlation = covariance / torch.outer(deviation, deviation)
        variances, vectors = torch.linalg.eigh(correlation)
        self.offset.copy_(mean[:, None])
        self.whitening.copy_((vectors / (variances.clamp(min=0) + RIDGE).sqrt()).T / deviation)
