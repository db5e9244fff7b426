"""Who of a folder is closest to whom, and who is a copy, by what a model says of the images.

A distance is the Euclidean one between posterior means, each latent in units of the posterior's own standard deviation
(root mean square over the folder), so that latents which the model does not use weigh next to nothing. An image is a
copy of another if it is no further away than most images of the folder move when they are saved again: a limit that
holds whatever the latents are, and however finely the model tells images apart.

Time goes with the square of the number of images, as a product of matrices; memory is flat, but for some numbers of
each image: embeddings may be on disk. Belongs to the scoring side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import gammaln

from pipelines.latents.vectors import IN_MEMORY, Vectors, blocks_of, first_of_equals, mean_of, mean_square_of
from pipelines.models.gallery import Gallery

SAVED_AGAIN = 0.9  # share of the images that move no further than the limit when they are saved again
CHANCE = 0.5  # pairs of different images, at most, that are expected to be as close by chance
FEWEST = 30  # images that tell how far apart different ones are
ROWS, COLUMNS = 512, 4096  # of a block of the matrix of distances: 16 MiB
_FLOOR = 0.01  # of the widest latent's spread, where there is no posterior scale

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """How far two images are apart.

    Attributes:
        unit: What a distance is in units of, in words.
        scale: (E,), what differences of each latent are divided by.
        limit: The largest distance of a near-duplicate.
        by_chance: Whether that is less than images move when they are saved again, since different ones are as close.
    """

    unit: str
    scale: NDArray[np.float64]
    limit: float
    by_chance: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Of each image: the closest other one, how far it is, and of which one it is a copy, or -1."""

    nearest: NDArray[np.int64]
    distance: NDArray[np.float64]
    copy_of: NDArray[np.int64]


def fit_metric(mean: Vectors, scale: Vectors | None, moved: Floats, gallery: Gallery | None = None) -> Metric:
    """Return the distance that fits a folder, and up to which images are copies of each other.

    That limit is less than `moved` asks for where the latents are few and the images many, so that different ones come
    as close by chance: less than `CHANCE` pairs of them are expected to, were they spread as a Gaussian with the
    covariance of the gallery (of the folder, where there is none).

    Args:
        mean: (N, E), embeddings.
        scale: (N, E), their standard deviations; None: not known.
        moved: (M, E), by how much the embeddings of some images change when these are saved again.
        gallery: Good images of training.
    """
    unit = "posterior standard deviations"
    common = np.zeros(mean.shape[1]) if scale is None else np.sqrt(mean_square_of(scale))
    if not common.min() > 0:  # an autoencoder, or an older file
        unit, common = "standard deviations over the folder", np.sqrt(mean_square_of(mean, mean_of(mean)))
        common = np.maximum(common, _FLOOR * common.max())
        common[common == 0] = 1.0
    saved = float(np.quantile(np.linalg.norm(moved / common, axis=1), SAVED_AGAIN)) if len(moved) else 0.0
    different = first_of_equals(mean)  # copies to the last bit are not there by chance
    known = len(different if gallery is None else gallery.codes) >= FEWEST and len(different) > 1
    limit = math.inf
    if known:
        spread = (
            _covariance(mean, different)
            if gallery is None
            else np.atleast_2d(np.cov((gallery.codes * gallery.spread).T))
        )
        limit = chance_distance(spread / np.outer(common, common), len(different))
    return Metric(unit, common, min(saved, limit), limit < saved)


def _covariance(mean: Vectors, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance of some of the vectors."""
    kept = np.zeros(len(mean), bool)
    kept[chosen] = True
    centre, total = np.zeros(mean.shape[1]), np.zeros((mean.shape[1], mean.shape[1]))
    for only_centre in (True, False):
        at = 0
        for block in blocks_of(mean):
            some = block[kept[at : at + len(block)]]
            at += len(block)
            if only_centre:
                centre += some.sum(axis=0) / len(chosen)
            else:
                total += (some - centre).T @ (some - centre)
    return total / (len(chosen) - 1)


def chance_distance(covariance: Floats, count: int) -> float:
    """A distance that less than `CHANCE` pairs of `count` Gaussian points are expected to be within.

    The difference of two points is N(0, 2C), whose density is largest at zero: at most V_k r^k / ((4 pi)^k det C)^(1/2)
    of the pairs are within r, V_k being the volume of the unit ball, in any k principal axes as well as in all; the
    best of these bounds counts.
    """
    variances = np.sort(np.linalg.eigvalsh(np.atleast_2d(covariance)))[::-1]
    variances = variances[variances > 0]
    if not len(variances) or count < 2:
        return 0.0
    axes = np.arange(1, len(variances) + 1)
    volume = axes / 2 * math.log(math.pi) - gammaln(axes / 2 + 1)
    pairs = math.log(count) + math.log(count - 1) - math.log(2)
    logs = math.log(CHANCE) - pairs + axes / 2 * math.log(4 * math.pi) + np.cumsum(np.log(variances)) / 2 - volume
    return float(np.exp((logs / axes).max()))


def find_closest(mean: Vectors, metric: Metric, *, advance: Callable[[int], object] = lambda _: None) -> Neighbours:
    """Find the closest other image of each, and the first image of which each is a copy.

    Going through the images in their order, one is a copy of the first before it that is no copy itself and no further
    away than `metric.limit`: copies of copies form no chains, and all images but the copies hold one of each.

    Args:
        mean: (N, E), embeddings in the order of the images' names; N at least 2.
        metric: From `fit_metric`.
        advance: Told how many more images are done.
    """
    points = _Points(mean, metric.scale)
    nearest, distance = np.empty(len(points), np.int64), np.empty(len(points))
    for start in range(0, len(points), ROWS):
        rows = points[start : start + ROWS]
        nearest[start : start + ROWS] = _nearest(rows, points, start)
        advance(len(rows))
    for start in range(0, len(points), COLUMNS):  # as a difference: what is alike to the last digit is at 0
        part = slice(start, start + COLUMNS)
        distance[part] = np.sqrt(np.square(points[part] - points[nearest[part]]).sum(axis=1))
    return Neighbours(nearest, distance, _copies(points, distance, metric.limit))


class _Points:
    """Embeddings as points whose Euclidean distance is that of the metric; all in memory only where they are few."""

    def __init__(self, mean: Vectors, scale: NDArray[np.float64]) -> None:
        self._centre, self._scale = mean_of(mean), scale
        self._mean: Vectors = mean
        if len(mean) * mean.shape[1] * 8 <= IN_MEMORY:  # converted once
            self._mean = mean[:].astype(np.float64)

    def __len__(self) -> int:
        return len(self._mean)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (self._mean[rows].astype(np.float64) - self._centre) / self._scale
        return found


def _nearest(rows: NDArray[np.float64], points: _Points, start: int) -> NDArray[np.int64]:
    """Of each row the closest other point; row i is point `start` + i, which does not count."""
    best, found = np.full(len(rows), np.inf), np.empty(len(rows), np.int64)
    each = np.arange(len(rows))
    for begin in range(0, len(points), COLUMNS):
        others = points[begin : begin + COLUMNS]
        products = rows @ (-2 * others.T) + np.square(others).sum(axis=1)  # |b|^2 - 2 a b
        own = each + start - begin
        here = (own >= 0) & (own < products.shape[1])
        products[each[here], own[here]] = np.inf
        column = products.argmin(axis=1)
        value = products[each, column]
        better = value < best
        best[better], found[better] = value[better], begin + column[better]
    return found


def _copies(points: _Points, distance: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """Of which image each is a copy, or -1; only what has another one near comes into question."""
    copy_of = np.full(len(points), -1)
    suspects = np.flatnonzero(distance <= limit)
    originals = np.empty(0, np.int64)
    for start in range(0, len(suspects), ROWS):
        rows = suspects[start : start + ROWS]
        for begin in range(0, len(originals), COLUMNS):
            left = rows[copy_of[rows] < 0]
            some = originals[begin : begin + COLUMNS]
            near = cdist(points[left], points[some]) <= limit
            hit = near.any(axis=1)
            copy_of[left[hit]] = some[near[hit].argmax(axis=1)]
        left = rows[copy_of[rows] < 0]
        near = cdist(points[left], points[left]) <= limit
        for i in range(len(left)):
            if copy_of[left[i]] < 0:
                later = left[i + 1 :][near[i, i + 1 :] & (copy_of[left[i + 1 :]] < 0)]
                copy_of[later] = left[i]
        originals = np.concatenate([originals, left[copy_of[left] < 0]])
    return copy_of
