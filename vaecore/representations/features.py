"""The y that is made of frozen features: what a pretrained network sees at each place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaecore.bound import spread
from vaecore.representations.backbones import Backbone
from vaecore.representations.base import Representation, Smooth
from vaecore.representations.exposure import standardise_exposure
from vaecore.representations.image_format import resize
from vaecore.representations.moments import Moments

LEAST_CHANNEL = 1e-8  # variance: a channel that is the same everywhere says nothing, and must not divide by nothing
LEAST_VARIANCE = 1e-4  # of a whitened channel before it is scaled, in variances of the channels that it is made of
AVERAGED_SHARE = 0.75
"""Of the bound that is of averaged maps where y holds both, and of the anomaly map that is of maps as they are."""


class Features(Representation):
    """y is a backbone's maps, averaged over 3x3 places, as they are, or both; channels are standardised over the set.

    Averaged maps tell good images from bad ones best, maps as they are where it is: with both, the bound is mostly of
    the former, the anomaly map mostly of the latter (`local_weight`).

    Maps of several strides are put on the coarsest one's grid, finer places becoming channels, which loses nothing.
    Whitened, all channels of a place are turned into as many uncorrelated ones (their principal components, each
    divided by its spread): what good images hardly ever do then counts as much as what they do all the time.

    Source: the averaging is PatchCore's (Roth et al. 2022, "Towards total recall in industrial anomaly detection",
    eq. 2); the likelihood of a VAE takes the place of its memory bank.
    """

    drawable = False
    mean: Tensor
    std: Tensor
    axes: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        input_size: tuple[int, int],
        smooth: Smooth = True,
        whiten: bool = False,
        whole: bool = False,
        standardise: bool = False,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Choose the size that images are resized to.

        Args:
            backbone: Frozen network with its strides.
            input_size: Height and width, multiples of the largest stride.
            smooth: Average over 3x3 places: steadies textures, and hides defects of a few pixels. "both": averaged and
                not, as a composite.
            whiten: Turn the channels of each place, of all strides together, into uncorrelated ones of unit variance.
            whole: Average over the image: y is one place, and says what is shown, not where.
            standardise: Give every image the same brightness and contrast first, where the exposure says nothing.
            weights: Of each stride's log-likelihood in the composite; default: all equal. Scaled to a mean of one over
                the dimensions of y, so that figures per dimension keep their scale.

        Raises:
            ValueError: The size is not a multiple of the stride, there is not one weight for each stride, or there are
                weights for whitened features, whose channels belong to no stride, or these are to be both.
        """
        super().__init__()
        coarsest = max(backbone.strides)
        if input_size[0] % coarsest or input_size[1] % coarsest:
            msg = f"size {input_size[0]} x {input_size[1]} is not a multiple of the backbone's stride {coarsest}"
            raise ValueError(msg)
        if whiten and smooth == "both":
            msg = "whitened features are of one kind: averaged or not, but not both"
            raise ValueError(msg)
        if whole and smooth:
            msg = "features that are averaged over the whole image are not smoothed before"
            raise ValueError(msg)
        if whiten and weights is not None:
            msg = "whitened features are of all strides together: they take no weights of strides"
            raise ValueError(msg)
        shares = [1.0] * len(backbone.strides) if weights is None else list(weights)
        if len(shares) != len(backbone.strides) or min(shares) <= 0:
            msg = f"{len(backbone.strides)} strides need as many weights above 0, not {shares}"
            raise ValueError(msg)
        self.backbone, self.input_size = backbone, input_size
        self.smooth, self.whiten, self.whole, self.standardises = smooth, whiten, whole, standardise
        self.size = (1, 1) if whole else (input_size[0] // coarsest, input_size[1] // coarsest)
        self._averaged = (True, False) if smooth == "both" else (smooth,)
        self._widths = list(backbone.channels) * len(self._averaged)
        factors = [1 if whole else coarsest // stride for stride in backbone.strides]
        self._factors = factors * len(self._averaged)
        self._groups = [width * factor**2 for width, factor in zip(self._widths, self._factors, strict=True)]
        self.channels = sum(self._groups)
        composite = len(self._groups) > 1 and not whiten
        of_bound, of_map = (AVERAGED_SHARE, 1 - AVERAGED_SHARE), (1 - AVERAGED_SHARE, AVERAGED_SHARE)
        self.register_buffer("weight", self._weight(shares, of_bound) if composite else None)
        self.register_buffer("local_weight", self._weight(shares, of_map) if composite else None)
        self.register_buffer("axes", torch.eye(self.channels) if whiten else None)
        self.register_buffer("mean", torch.zeros(self.channels, 1, 1))
        self.register_buffer("std", torch.ones(self.channels, 1, 1))

    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Resize, run the backbone, average; grey images are shown to it as three equal channels."""
        shown = resize(image, self.input_size)
        if self.standardises:
            shown = standardise_exposure(shown)
        return self.arrange(self.backbone(shown.expand(-1, 3, -1, -1)))

    def arrange(self, maps: Sequence[Float[Tensor, "B C h2 w2"]]) -> Float[Tensor, "B D h w"]:
        """Average the backbone's maps, and put them on one grid."""
        if self.whole:
            return torch.cat([m.mean(dim=(2, 3), keepdim=True) for m in maps], dim=1)
        copies = [
            F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) if averaged else m
            for averaged in self._averaged
            for m in maps
        ]
        return torch.cat([F.pixel_unshuffle(m, f) for m, f in zip(copies, self._factors, strict=True)], dim=1)

    def normalise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """Standardise each channel of each stride, and whiten."""
        y = (extracted - self.mean) / self.std
        return y if self.axes is None else F.conv2d(y, self.axes[:, :, None, None])

    def sum_by_place(self, values: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Sum over channels on the finest stride's grid; a coarser stride's value is divided among its finer places.

        Whitened channels belong to all strides: they stay on the coarsest one's grid.
        """
        if self.whiten:
            return values.sum(dim=1)
        finest = max(self._factors)
        total = torch.zeros(())
        for part, factor in zip(self._parts(values), self._factors, strict=True):
            places = F.pixel_shuffle(part, factor).sum(dim=1)
            total = total + spread(places, (finest // factor, finest // factor))
        return total

    @torch.no_grad()
    def standardise(self, batches: Iterable[Float[Tensor, "B D h w"]]) -> None:
        """Set the statistics of every channel, and the axes if whitened, from extracted features, gone through once."""
        if self.axes is not None:
            self._whiten(batches)
            return
        sums = [torch.zeros(3, width, dtype=torch.float64) for width in self._widths]
        for batch in batches:
            for part, factor, stride in zip(self._parts(batch), self._factors, sums, strict=True):
                values = F.pixel_shuffle(part, factor).transpose(0, 1).flatten(1).double()  # channel, all places
                stride += torch.stack(
                    [torch.ones(len(values)) * values.shape[1], values.sum(1), values.square().sum(1)]
                )
        count, total, square = torch.cat(sums, dim=1)
        mean = total / count
        std = (square / count - mean.square()).clamp(min=LEAST_CHANNEL).sqrt()
        repeats = torch.cat([torch.full((c,), f**2) for c, f in zip(self._widths, self._factors, strict=True)])
        self.mean.copy_(mean.repeat_interleave(repeats)[:, None, None])
        self.std.copy_(std.repeat_interleave(repeats)[:, None, None])

    def _whiten(self, batches: Iterable[Float[Tensor, "B D h w"]]) -> None:
        moments = Moments(self.channels)
        for batch in batches:
            moments.add(batch)
        mean, covariance = moments.mean, moments.covariance
        std = covariance.diagonal().clamp(min=LEAST_CHANNEL).sqrt()
        variances, vectors = torch.linalg.eigh(covariance / torch.outer(std, std))
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(std[:, None, None])
        assert self.axes is not None  # noqa: S101 - for the type checker
        self.axes.copy_((vectors / (variances.clamp(min=0) + LEAST_VARIANCE).sqrt()).T)

    def _weight(self, shares: Sequence[float], of_averaged: tuple[float, float]) -> Float[Tensor, "D 1 1"]:
        """A weight for each channel, one on average: its stride's, times that of being averaged or not."""
        factors = of_averaged if len(self._averaged) == 2 else (1.0,)
        each = [share * factor for factor in factors for share in shares]
        weight = torch.cat([torch.full((n,), value) for n, value in zip(self._groups, each, strict=True)])
        return (weight / weight.mean())[:, None, None]

    def _parts(self, values: Float[Tensor, "B D h w"]) -> list[Float[Tensor, "B D2 h w"]]:
        """The channels of each stride."""
        starts = [sum(self._groups[:i]) for i in range(len(self._groups))]
        return [values[:, start : start + n] for start, n in zip(starts, self._groups, strict=True)]
