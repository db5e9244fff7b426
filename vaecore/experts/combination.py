"""From the maps of several experts to one map and one score, in standard deviations of good images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.experts.base import to_half
from vaecore.representations.image_format import resize

STEEPNESS = 8.0
ENOUGH = 100  # good images, for differences of experts that can be believed
EXPECTED = 0.5  # share of what images like it score that is taken off an image's score
NEARNESS = 2.0  # a good image that is half as far, in squared distance, counts 2 ** NEARNESS times as much
HIGHEST_EXPECTED = 3.0  # robust standard deviations above the median: a defect among good images excuses no other
NORMAL_SCALE = 1.4826  # standard deviations of a Gaussian in its median absolute deviation
LEAST_CHANGE = 1e-3  # spread of what images show on average: less is rounding, such as of equal brightness
LEAST_DISTANCE = 1e-3  # squared, of a dimension: the same image again is not infinitely near
LEAST_MISSED = 0.002  # share of pairs: below it, differences are those of chance
LEAST_OF_FIRST = 0.1  # the weight of the first, the VAE: terms of the bound are in every score
OWN_SHARE = 0.5  # of a place's variance that is its own, with many images; the rest is that of all places
PRIOR_IMAGES = 20  # that the variance of all places counts as, too
LEAST_SPREAD = 1e-6


class PlaceStatistics(nn.Module):
    """Mean and spread of good images' values at each place: what is usual differs over an aligned object.

    The means are shrunk towards that of all places as far as chance explains their differences, the variances towards
    that of all places: where good images hardly differ, a trifle is no alarm, and a texture has the same statistics
    everywhere.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        """Make room for maps of `size`; until `fit`, nothing is changed."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, places: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        """Standardise each place."""
        return (places - self.mean) / self.scale

    @torch.no_grad()
    def fit(self, places: Float[Tensor, "N h w"]) -> None:
        """Set the statistics from maps of at least two good images that the expert was not fitted on.

        Source: the shrunk means are those of Efron and Morris 1973, "Stein's estimation rule and its competitors".
        """
        count = len(places)
        mean, variance = places.mean(dim=0), places.var(dim=0)
        shared, chance = mean.mean(), variance.mean() / count
        between = (mean.var(unbiased=False) - chance).clamp(min=0)
        self.mean.copy_(shared + between / (between + chance).clamp(min=1e-12) * (mean - shared))
        own = OWN_SHARE * count / (count + PRIOR_IMAGES)
        self.scale.copy_((own * variance + (1 - own) * variance.mean()).sqrt().clamp(min=LEAST_SPREAD))


class ExpertScore(nn.Module):
    """One expert's map and score, both in standard deviations of good images.

    The map is standardised by place and pooled over a small and over a large area; each pool is standardised, and so is
    the larger of them, which is the score.
    """

    pool_mean: Tensor
    pool_scale: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, size: tuple[int, int], areas: Sequence[float]) -> None:
        """Make room for maps of `size`, pooled over the highest of these shares of their places."""
        super().__init__()
        self.places = PlaceStatistics(size)
        self.counts = [max(1, round(area * size[0] * size[1])) for area in areas]
        self.register_buffer("pool_mean", torch.zeros(len(areas)))
        self.register_buffer("pool_scale", torch.ones(len(areas)))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, places: Float[Tensor, "B h w"]) -> tuple[Float[Tensor, "B h w"], Float[Tensor, " B"]]:
        """The standardised map, and the score; higher is more abnormal."""
        shown = self.places(places)
        return shown, (self._larger(shown) - self.mean) / self.scale

    @torch.no_grad()
    def fit(self, places: Float[Tensor, "N h w"]) -> None:
        """Set all statistics from maps of at least two good images that the expert was not fitted on."""
        self.places.fit(places)
        shown = self.places(places)
        pools = self._pool(shown)
        self.pool_mean.copy_(pools.mean(dim=0))
        self.pool_scale.copy_(pools.std(dim=0).clamp(min=LEAST_SPREAD))
        larger = self._larger(shown)
        self.mean.copy_(larger.mean())
        self.scale.copy_(larger.std().clamp(min=LEAST_SPREAD))

    def _larger(self, shown: Tensor) -> Float[Tensor, " B"]:
        return ((self._pool(shown) - self.pool_mean) / self.pool_scale).amax(dim=1)

    def _pool(self, shown: Float[Tensor, "B h w"]) -> Float[Tensor, "B P"]:
        highest = shown.flatten(1).topk(max(self.counts), dim=1).values
        return torch.stack([highest[:, :count].mean(dim=1) for count in self.counts], dim=1)


class LikeImages(nn.Module):
    """What good images like this one score: some kinds of good images look less usual than others, and always will.

    The mean over good images, weighted by how near they are in what their features are on average.

    Source: Shepard 1968, "A two-dimensional interpolation function for irregularly-spaced data", for the weights;
    Wilkinghoff et al. 2025, "Local density-based anomaly score normalization for domain generalization".
    """

    mean: Tensor
    scale: Tensor
    summaries: Tensor
    scores: Tensor

    def __init__(self, images: int, dims: int, experts: int) -> None:
        """Make room for good images, with `dims` numbers and the scores of `experts` for each."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(dims))
        self.register_buffer("summaries", torch.zeros(images, dims))
        self.register_buffer("scores", torch.zeros(images, experts))

    def forward(self, summary: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """The scores to expect of images with these features on average."""
        return self._nearness((summary - self.mean) / self.scale).softmax(dim=1) @ self.scores

    @torch.no_grad()
    def fit(self, summaries: Float[Tensor, "N D"], scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Keep good images; return what the others of them let expect of each."""
        self.mean.copy_(summaries.mean(dim=0))
        self.scale.copy_(summaries.std(dim=0).clamp(min=LEAST_CHANGE))
        self.summaries.copy_(to_half((summaries - self.mean) / self.scale))
        median = scores.median(dim=0).values
        spread = NORMAL_SCALE * (scores - median).abs().median(dim=0).values
        self.scores.copy_(scores.minimum(median + HIGHEST_EXPECTED * spread))
        nearness = self._nearness(self.summaries).fill_diagonal_(-torch.inf)
        return nearness.softmax(dim=1) @ self.scores

    def _nearness(self, summary: Float[Tensor, "B D"]) -> Float[Tensor, "B N"]:
        """Logarithm of the weight of each good image."""
        products = summary @ self.summaries.T
        squares = summary.square().sum(dim=1, keepdim=True) + self.summaries.square().sum(dim=1)
        return -NEARNESS * ((squares - 2 * products) / summary.shape[1]).clamp(min=LEAST_DISTANCE).log()


class Combination(nn.Module):
    """One map and one score of several experts: the weighted means of theirs, less what images like it score.

    The weights come from synthetic defects: an expert that misses half as many pairs of a good and a damaged image
    weighs 2 ** STEEPNESS times as much, with `ENOUGH` images; the first, a VAE, weighs `LEAST_OF_FIRST` at least. No
    labelled image takes part.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor

    def __init__(
        self, sizes: Sequence[tuple[int, int]], areas: Sequence[Sequence[float]], *, images: int, dims: int
    ) -> None:
        """Make room for experts whose maps have these sizes, each pooled over its areas.

        Args:
            sizes: Height and width of each expert's map.
            areas: Shares of the places that each is pooled over.
            images: Good images that the statistics are of.
            dims: Numbers that say what an image shows on average.
        """
        super().__init__()
        self.each = nn.ModuleList(ExpertScore(*both) for both in zip(sizes, areas, strict=True))
        self.size = max(sizes)
        self.like = LikeImages(images, dims, len(sizes))
        self.register_buffer("mean", torch.zeros(len(sizes)))
        self.register_buffer("scale", torch.ones(len(sizes)))
        self.register_buffer("weights", torch.full((len(sizes),), 1 / len(sizes)))

    def forward(
        self, maps: Sequence[Float[Tensor, "B h w"]], summary: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B h2 w2"], Float[Tensor, " B"], Float[Tensor, "B E"]]:
        """The anomaly map on the finest expert's grid, the score, and each expert's own score.

        Args:
            maps: Each expert's.
            summary: What each image shows on average (`Features.summarise`).
        """
        shown, scores = self._apart(maps)
        each = (scores - EXPECTED * self.like(summary) - self.mean) / self.scale
        total = torch.zeros(())
        for weight, places in zip(self.weights, shown, strict=True):
            total = total + weight * resize(places.unsqueeze(1), self.size).squeeze(1)
        return total, (each * self.weights).sum(dim=1), each

    @torch.no_grad()
    def fit(self, maps: Sequence[Float[Tensor, "N h w"]], summaries: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Set the statistics from the maps of at least two good images that no expert was fitted on.

        Returns:
            Each expert's own scores of these images, in which what is expected of one is told by the others.
        """
        for one, places in zip(self.each, maps, strict=True):
            cast("ExpertScore", one).fit(places)
        scores = self._apart(maps)[1]
        left = scores - EXPECTED * self.like.fit(summaries, scores)
        self.mean.copy_(left.mean(dim=0))
        self.scale.copy_(left.std(dim=0).clamp(min=LEAST_SPREAD))
        return (left - self.mean) / self.scale

    @torch.no_grad()
    def weigh(self, separations: Sequence[float], images: int) -> None:
        """Set the weights from each expert's AUROC between good images and damaged ones.

        Args:
            separations: Of each expert.
            images: Good images that these were measured on. With few, chance makes the differences: the weights are
                nearer to equal ones.
        """
        missed = (1 - torch.tensor(separations)).clamp(min=LEAST_MISSED)
        weights = missed ** (-STEEPNESS * min(1.0, images / ENOUGH))
        weights /= weights.sum()
        if weights[0] < LEAST_OF_FIRST:
            weights[1:] *= (1 - LEAST_OF_FIRST) / (1 - weights[0])
            weights[0] = LEAST_OF_FIRST
        self.weights.copy_(weights)

    def _apart(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Float[Tensor, "B E"]]:
        """Each expert's standardised map, and its score before what is expected is taken off."""
        shown, scores = zip(*(one(places) for one, places in zip(self.each, maps, strict=True)), strict=True)
        return shown, torch.stack(scores, dim=1)
