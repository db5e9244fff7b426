"""The y that is made of frozen features: what a pretrained network sees at each place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaecore.bound import spread
from vaecore.representations.backbones import Backbone
from vaecore.representations.base import Representation
from vaecore.representations.exposure import standardise_exposure
from vaecore.representations.image_format import resize

LEAST_CHANNEL = 1e-8  # variance: a channel that is the same everywhere says nothing, and must not divide by nothing


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at: maps of some of the backbone's strides, put on one grid."""

    positions: tuple[int, ...]  # of the strides, in the backbone's order from fine to coarse
    smooth: bool  # averaged over 3x3 places: steadies textures, and hides defects of a few pixels
    finest: bool = False  # on the finest stride's grid, coarser maps interpolated; else finer places become channels


WIDE = View((-2, -1), smooth=True)  # the two coarsest strides, on the coarsest grid: what the bound is of
PLACES = View((-2, -1), smooth=True, finest=True)
FINE = View((0, 1), smooth=False)  # the two finest strides


class Features(Representation):
    """y is a view of a backbone's maps; every channel is standardised over the set.

    `extract` keeps the maps of all strides as they are, on the coarsest one's grid, finer places becoming channels:
    nothing is lost, and every view is made of it.

    Source: the averaging is PatchCore's (Roth et al. 2022, "Towards total recall in industrial anomaly detection",
    eq. 2).
    """

    drawable = False
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        input_size: tuple[int, int],
        view: View = WIDE,
        whole: bool = False,
        standardise: bool = False,
        recentre: bool = False,
    ) -> None:
        """Choose the size that images are resized to.

        Args:
            backbone: Frozen network with its strides, from fine to coarse.
            input_size: Height and width, multiples of the largest stride.
            view: What y is.
            whole: Average over the image: y is one place, and says what is shown, not where.
            standardise: Give every image the same brightness and contrast first, where the exposure says nothing.
            recentre: Take the mean over the image off every map of a view: blur, noise, compression and light change
                the whole image alike, and defects do not. An image that is one place keeps its mean.

        Raises:
            ValueError: The size is not a multiple of the stride, or the view is of strides that there are not.
        """
        super().__init__()
        coarsest = max(backbone.strides)
        if input_size[0] % coarsest or input_size[1] % coarsest:
            msg = f"size {input_size[0]} x {input_size[1]} is not a multiple of the backbone's stride {coarsest}"
            raise ValueError(msg)
        if list(backbone.strides) != sorted(backbone.strides):
            msg = f"strides are given from fine to coarse, not as {backbone.strides}"
            raise ValueError(msg)
        self.backbone, self.input_size = backbone, input_size
        self.view, self.whole, self.standardises = view, whole, standardise
        self.recentres = recentre and not whole
        self.smooth = view.smooth and not whole
        grid = (1, 1) if whole else (input_size[0] // coarsest, input_size[1] // coarsest)
        self._grid, self._widths = grid, backbone.channels
        self._factors = [1 if whole else coarsest // stride for stride in backbone.strides]
        self._groups = [width * factor**2 for width, factor in zip(self._widths, self._factors, strict=True)]
        self.extracted_channels, self.extracted_size = sum(self._groups), grid
        self.channels, self.size = self.shape_of(view)
        self.register_buffer("mean", torch.zeros(self.extracted_channels, 1, 1))
        self.register_buffer("std", torch.ones(self.extracted_channels, 1, 1))

    def shape_of(self, view: View) -> tuple[int, tuple[int, int]]:
        """Channels, and height and width, of a view."""
        positions = self._positions(view)
        factors, widths = [self._factors[i] for i in positions], [self._widths[i] for i in positions]
        coarse = min(factors)
        factor = max(factors) if view.finest else coarse
        size = (self._grid[0] * factor, self._grid[1] * factor)
        if view.finest:
            return sum(widths), size
        return sum(width * (each // coarse) ** 2 for width, each in zip(widths, factors, strict=True)), size

    def _positions(self, view: View) -> list[int]:
        """The strides of a view, each once, from fine to coarse; of a backbone that has fewer, the nearest."""
        last = len(self._widths) - 1
        return sorted({max(0, last + 1 + i) if i < 0 else min(i, last) for i in view.positions})

    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Resize, and run the backbone; grey images are shown to it as three equal channels."""
        shown = resize(image, self.input_size)
        if self.standardises:
            shown = standardise_exposure(shown)
        return self.arrange(self.backbone(shown.expand(-1, 3, -1, -1)))

    def arrange(self, maps: list[Float[Tensor, "B C h2 w2"]]) -> Float[Tensor, "B D h w"]:
        """Put the backbone's maps on one grid."""
        if self.whole:
            return torch.cat([each.mean(dim=(2, 3), keepdim=True) for each in maps], dim=1)
        return torch.cat([F.pixel_unshuffle(m, f) for m, f in zip(maps, self._factors, strict=True)], dim=1)

    def normalise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C h w"]:
        """y: the view that the bound is of."""
        return self.look(extracted, self.view)

    def look(self, extracted: Float[Tensor, "B D h w"], view: View) -> Float[Tensor, "B C h w"]:
        """Standardise each channel, recentre each map if that is asked for, and make a view."""
        return self._make_view(extracted, view, recentre=self.recentres)

    def summarise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C"]:
        """What an image shows on average, wherever it shows it: the mean of y over its places, never recentred."""
        return self._make_view(extracted, self.view, recentre=False).mean(dim=(2, 3))

    def _make_view(
        self, extracted: Float[Tensor, "B D h w"], view: View, *, recentre: bool
    ) -> Float[Tensor, "B C h w"]:
        chosen = self._positions(view)
        parts = [self._parts(each) for each in (extracted, self.mean, self.std)]
        maps = [F.pixel_shuffle((parts[0][i] - parts[1][i]) / parts[2][i], self._factors[i]) for i in chosen]
        if recentre:
            maps = [m - m.mean(dim=(2, 3), keepdim=True) for m in maps]
        if view.smooth and not self.whole:
            maps = [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]
        _, size = self.shape_of(view)
        if view.finest:
            maps = [
                m if tuple(m.shape[2:]) == size else F.interpolate(m, size=size, mode="bilinear", align_corners=False)
                for m in maps
            ]
            return torch.cat(maps, dim=1)
        coarse = min(self._factors[i] for i in chosen)
        return torch.cat(
            [F.pixel_unshuffle(m, self._factors[i] // coarse) for m, i in zip(maps, chosen, strict=True)], dim=1
        )

    def sum_by_place(self, values: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h2 w2"]:
        """Sum over channels on y's finest stride's grid; a coarser stride's value is divided among its finer places."""
        chosen = self._positions(self.view)
        coarse = min(self._factors[i] for i in chosen)
        factors = [self._factors[i] // coarse for i in chosen]
        finest, start, total = max(factors), 0, torch.zeros(())
        for i, factor in zip(chosen, factors, strict=True):
            width = self._widths[i] * factor**2
            places = F.pixel_shuffle(values[:, start : start + width], factor).sum(dim=1)
            total, start = total + spread(places, (finest // factor, finest // factor)), start + width
        return total

    @torch.no_grad()
    def standardise(self, batches: Iterable[Float[Tensor, "B D h w"]]) -> None:
        """Set the statistics of every channel from extracted features, gone through once."""
        sums = [torch.zeros(3, width, dtype=torch.float64) for width in self._widths]
        for batch in batches:
            for part, factor, stride in zip(self._parts(batch), self._factors, sums, strict=True):
                values = F.pixel_shuffle(part, factor).transpose(0, 1).flatten(1)  # channel, all places
                stride += torch.stack(
                    [torch.full((len(values),), values.shape[1]), values.sum(1), values.square().sum(1)]
                )
        count, total, square = torch.cat(sums, dim=1)
        mean = total / count
        std = (square / count - mean.square()).clamp(min=LEAST_CHANNEL).sqrt()
        repeats = torch.cat([torch.full((c,), f**2) for c, f in zip(self._widths, self._factors, strict=True)])
        self.mean.copy_(mean.repeat_interleave(repeats)[:, None, None])
        self.std.copy_(std.repeat_interleave(repeats)[:, None, None])

    def _parts(self, values: Float[Tensor, "... D h w"]) -> list[Float[Tensor, "... D2 h w"]]:
        """The channels of each stride."""
        starts = [sum(self._groups[:i]) for i in range(len(self._groups))]
        return [values.narrow(-3, start, n) for start, n in zip(starts, self._groups, strict=True)]
