"""Methods that remember good features: nearest neighbours, PatchCore and PaDiM, each after its paper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from pipelines.base.progress import progress
from pipelines.bench.measure import Scored
from vaecore.representations.backbones import Backbone

log = logging.getLogger(__name__)

ENTRIES = 2**24  # of a matrix of distances that is held at once: 64 MiB
MANY = 20_000  # places: from here on the coreset is 1 %, as the papers' larger sets have it
NEIGHBOURS = 9  # b of PatchCore's re-weighting
PROJECTED = 128  # dimensions in which the coreset is chosen
PADIM_CHANNELS = 100  # R_d of the paper's smaller network
PADIM_RIDGE = 0.01  # epsilon of its covariance
BLUR = 4.0  # standard deviation in pixels, of both papers' maps

Embed = Callable[[Tensor], Tensor]  # images (B, C, H, W) to features (B, D, h, w)


class Nearest(NamedTuple):
    """Of each query, nearest first."""

    distance: Tensor  # (Q, k)
    place: Tensor  # (Q, k), its row in the bank


class Bank:
    """Places that are remembered, and the exact Euclidean nearest neighbours among them."""

    def __init__(self, rows: Tensor) -> None:
        """Keep places, (M, D)."""
        self.rows = rows
        # About their mean, squared lengths are no larger than distances need: float32 keeps them apart.
        self._centre = rows.mean(dim=0)
        self._centred = rows - self._centre
        self._squares = self._centred.square().sum(dim=1)

    def __len__(self) -> int:
        """Number of places."""
        return len(self.rows)

    def nearest(self, queries: Tensor, count: int = 1) -> Nearest:
        """Find the neighbours of each query (Q, D)."""
        found = []
        for part in queries.split(max(1, ENTRIES // len(self))):
            # A query's own square orders nothing; the distances themselves are taken afresh, without cancellation.
            order = torch.addmm(self._squares, part - self._centre, self._centred.T, alpha=-2)
            place = order.topk(count, dim=1, largest=False).indices
            found.append((torch.linalg.vector_norm(part[:, None] - self.rows[place], dim=2), place))
        return Nearest(torch.cat([distance for distance, _ in found]), torch.cat([place for _, place in found]))


def rows_of(features: Tensor) -> Tensor:
    """(B, D, h, w) to one row for each place, (B * h * w, D)."""
    return features.movedim(1, -1).flatten(0, 2)


class NearestNeighbour:
    """Distance to the nearest place of any training image; an image scores as its farthest place."""

    def __init__(self, embed: Embed, bank: Tensor) -> None:
        """Keep the features of all places, (M, D)."""
        self._embed, self._bank = embed, Bank(bank)

    def __call__(self, image: Tensor) -> Scored:
        """Score a batch."""
        features = self._embed(image)
        maps = self._bank.nearest(rows_of(features)).distance.reshape(len(features), *features.shape[2:])
        return Scored(maps.amax(dim=(1, 2)), maps)


class PatchCore:
    """Distance to the nearest member of a coreset, re-weighted where that member's surroundings are sparse.

    Source: Roth et al. 2022, "Towards total recall in industrial anomaly detection", sections 3.2 and 3.3.
    """

    def __init__(self, embed: Embed, places: Tensor, *, seed: int) -> None:
        """Choose the coreset of all training places, (M, D)."""
        share = coreset_share(len(places))
        chosen = coreset(places, max(1, round(share * len(places))), seed)
        self._embed, self._bank = embed, Bank(places[chosen])

    def __call__(self, image: Tensor) -> Scored:
        """Score a batch."""
        features = self._embed(image)
        rows = rows_of(features).reshape(len(features), -1, features.shape[1])
        found = self._bank.nearest(rows.flatten(0, 1))
        distance = found.distance.reshape(len(rows), -1)
        highest, place = distance.max(dim=1)
        member = self._bank.rows[found.place.reshape(len(rows), -1).gather(1, place[:, None])[:, 0]]  # m*
        around = self._bank.nearest(member, min(NEIGHBOURS, len(self._bank))).place  # N_b(m*), itself among them
        worst = rows[torch.arange(len(rows), device=rows.device), place]  # m^test,*
        weight = 1 - torch.exp(highest - torch.logsumexp(
            torch.linalg.vector_norm(worst[:, None] - self._bank.rows[around], dim=2), dim=1
        ))  # fmt: skip
        maps = distance.reshape(len(features), *features.shape[2:])
        return Scored(weight * highest if len(self._bank) > 1 else highest, _smooth(maps, image))


def coreset_share(places: int) -> float:
    """Share of all places that PatchCore keeps: 10 %, or 1 % of many."""
    return 0.01 if places > MANY else 0.1


def coreset(places: Tensor, count: int, seed: int) -> Tensor:
    """Indices of a subset whose farthest outsider is close: always the next is the one farthest from all before.

    Args:
        places: (M, D).
        count: Size of the subset.
        seed: Of the first member, and of the random projection that distances are taken in.

    Source: Roth et al. 2022, algorithm 1 (Sener and Savarese 2018, greedy k-centre).
    """
    generator = torch.Generator().manual_seed(seed)
    if places.shape[1] > PROJECTED:
        places = places @ torch.randn(places.shape[1], PROJECTED, generator=generator).to(places) / PROJECTED**0.5
    chosen = [int(torch.randint(len(places), (1,), generator=generator))]
    distance = torch.full((len(places),), torch.inf, device=places.device)
    with progress(log, "coreset", count, "members") as advance:
        for _ in range(count - 1):
            advance()
            distance = torch.minimum(distance, (places - places[chosen[-1]]).square().sum(dim=1))
            chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=places.device)


class Gaussians(NamedTuple):
    """One Gaussian for each place."""

    mean: Tensor  # (P, D)
    precision: Tensor  # (P, D, D)

    def distance(self, features: Tensor) -> Tensor:
        """Mahalanobis distance of features (B, D, h, w) with h * w = P, as a map (B, h, w)."""
        apart = features.flatten(2).permute(2, 0, 1) - self.mean[:, None]  # (P, B, D)
        square = ((apart @ self.precision) * apart).sum(dim=2)
        return square.clamp(min=0).sqrt().T.reshape(len(features), *features.shape[2:])


def fit_gaussians(batches: Iterable[Tensor]) -> Gaussians:
    """Mean and inverse covariance of features at each place, in one pass.

    Args:
        batches: Features (B, D, h, w), two images or more in all.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows = batch.flatten(2).permute(2, 0, 1).double()  # (P, B, D)
        total = total.to(rows) + rows.sum(dim=1)
        square = square.to(rows) + rows.mT @ rows
        count += rows.shape[1]
    mean = total / count
    covariance = (square - count * mean[:, :, None] * mean[:, None, :]) / (count - 1)
    ridge = PADIM_RIDGE * torch.eye(covariance.shape[-1]).to(covariance)
    return Gaussians(mean.float(), torch.linalg.inv(covariance + ridge).float())


class Padim:
    """Mahalanobis distance to the Gaussian of good features at the same place, of some randomly drawn channels.

    Source: Defard et al. 2021, "PaDiM: a patch distribution modeling framework for anomaly detection", section 3.
    """

    def __init__(self, embed: Embed, images: Iterable[Tensor], channels: int, *, seed: int) -> None:
        """Draw channels of the `channels` that `embed` gives, and fit batches of training images."""
        self._embed = embed
        self._drawn = torch.randperm(channels, generator=torch.Generator().manual_seed(seed))[:PADIM_CHANNELS]
        self.channels = len(self._drawn)
        self._gaussians = fit_gaussians(self._features(image) for image in images)

    def __call__(self, image: Tensor) -> Scored:
        """Score a batch."""
        maps = _smooth(self._gaussians.distance(self._features(image)), image)
        return Scored(maps.amax(dim=(1, 2)), maps)

    def _features(self, image: Tensor) -> Tensor:
        return self._embed(image)[:, self._drawn.to(image.device)]


def embedding(backbone: Backbone, *, local: bool) -> Embed:
    """Maps of all strides, put together on the finest grid.

    Args:
        backbone: The frozen network.
        local: Average over 3x3 places first and stretch coarse maps smoothly, as PatchCore does; else take them as
            they are, as PaDiM does.
    """

    def embed(image: Tensor) -> Tensor:
        maps = backbone(image.expand(-1, 3, -1, -1))
        if local:
            maps = [F.avg_pool2d(each, 3, stride=1, padding=1) for each in maps]
        finest = max((each.shape[-2:] for each in maps), key=lambda size: size[0])
        mode = "bilinear" if local else "nearest"
        return torch.cat([F.interpolate(each, size=finest, mode=mode) for each in maps], dim=1)

    return embed


def _smooth(maps: Tensor, image: Tensor) -> Tensor:
    """Maps (B, h, w) at the size of the images, blurred."""
    size = image.shape[-2:]
    width = 2 * round(4 * BLUR) + 1
    kernel = [min(width, 2 * side - 1) for side in reversed(size)]  # reflection goes no further than the image
    whole = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)
    blurred: Tensor = gaussian_blur(whole, kernel, [BLUR, BLUR])
    return blurred[:, 0]
