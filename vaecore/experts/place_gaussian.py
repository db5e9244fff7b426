"""A Gaussian for each place: what is usual differs over an aligned object, and hardly over a texture."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaecore.experts.base import Batches, Expert, Sums, to_half
from vaecore.representations import PLACES

COMPONENTS = 64  # of the features at a place
PRIOR_IMAGES = 64  # that the covariance of all places counts as, against a place's own
LARGEST = 12_000_000  # numbers of the covariances: the model file stays below 64 MB
RIDGE = 1e-6


class PlaceGaussian(Expert):
    """A mean and a covariance for each place, both shrunk towards those of all places; places are independent.

    The features of a place are first turned into the leading principal components of what is left of them once each
    place's mean is taken out, scaled to a variance of one. With few images, or where no place differs from another, it
    is one Gaussian for all places.

    Source: Defard et al. 2021, "PaDiM: a patch distribution modeling framework for anomaly detection and localization",
    section III.B, which adds a fixed ridge in place of the shrinkage; Ledoit and Wolf 2004, "A well-conditioned
    estimator for large-dimensional covariance matrices", for shrinkage.
    """

    summary = "a Gaussian for each place"
    aspect = "compared place by place with good images"
    view = PLACES
    offset: Tensor
    projection: Tensor
    whitening: Tensor

    def __init__(self, *, channels: int, size: tuple[int, int], components: int = COMPONENTS) -> None:
        """Make room for a fitted model of maps of `channels` features on a grid of `size`."""
        super().__init__()
        places = size[0] * size[1]
        components = max(1, min(components, channels, math.isqrt(LARGEST // places)))
        self.size = size
        self.register_buffer("offset", torch.zeros(channels, places))
        self.register_buffer("projection", torch.zeros(components, channels))
        self.register_buffer("whitening", torch.zeros(places, components, components))

    def forward(self, y: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h w"]:
        """Minus the log-density of each place's components, up to a constant."""
        z = self._components(y)  # (places, components, B)
        distance: Tensor = (self.whitening @ z).square().sum(dim=1).T
        places: Tensor = (0.5 * distance).unflatten(1, self.size)
        return places

    def _components(self, y: Tensor) -> Float[Tensor, "P K B"]:
        return (self.projection @ (y.flatten(2) - self.offset)).permute(2, 1, 0)

    @torch.no_grad()
    def gather(self, y: Float[Tensor, "B D h w"]) -> Sums:
        """Number of images, sums by place, and products of the features over all places."""
        rows = y.transpose(0, 1).flatten(1)
        return torch.tensor(len(y)), y.flatten(2).double().sum(dim=0), (rows @ rows.T).double()

    @torch.no_grad()
    def fit_to(self, sums: Sums, batches: Batches) -> None:
        """Find means and components, and then the covariances of these."""
        count, total, products = sums
        self._fit_means(count, total, products.diagonal())
        self._fit_projection(count, total, products)
        own = torch.zeros(self.whitening.shape)
        for y in batches():
            z = self._components(y)
            own += z @ z.transpose(1, 2)
        weight = PRIOR_IMAGES / (PRIOR_IMAGES + int(count))
        shared = torch.eye(own.shape[1])
        self.whitening.copy_(to_half(_inverse_factor((1 - weight) * own / count + weight * shared).float()))

    def _fit_means(self, count: Tensor, total: Float[Tensor, "C P"], squares: Float[Tensor, " C"]) -> None:
        """Set each place's mean, shrunk towards that of all places as far as chance explains their differences."""
        mean = total / count
        left = squares / count / mean.shape[1] - mean.square().mean(dim=1)
        within = left[:, None].clamp(min=RIDGE) * count / (count - 1)
        shared = mean.mean(dim=1, keepdim=True)
        between = ((mean - shared).square().mean(dim=1, keepdim=True) - within / count).clamp(min=0)
        self.offset.copy_(shared + between / (between + within / count) * (mean - shared))

    def _fit_projection(self, count: Tensor, total: Float[Tensor, "C P"], products: Float[Tensor, "C C"]) -> None:
        """Set the components of what is left once the means are taken out."""
        offset = self.offset.double()
        across = total @ offset.T
        left = (products - across - across.T + count * (offset @ offset.T)) / (count * offset.shape[1])
        deviation = left.diagonal().clamp(min=RIDGE).sqrt()  # so that a channel's scale says nothing
        variances, vectors = torch.linalg.eigh(left / torch.outer(deviation, deviation))
        kept = slice(len(variances) - len(self.projection), None)
        self.projection.copy_((vectors[:, kept] / variances[kept].clamp(min=RIDGE).sqrt()).T / deviation[None])


def _inverse_factor(covariance: Float[Tensor, "... D D"]) -> Float[Tensor, "... D D"]:
    """W with W S W' = I for covariances S, lower triangular, in double precision: |W x|^2 is Mahalanobis' distance."""
    factor = torch.linalg.cholesky(covariance.double())
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse
