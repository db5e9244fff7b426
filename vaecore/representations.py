"""What the y of the bound is made of: an image's pixels, or frozen features of them.

A bound compares images under one model and one representation, never models with different ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaecore.backbones import Backbone
from vaecore.bound import spread
from vaecore.image_format import OFF_HALF, resize


class Representation(nn.Module, ABC):
    """y = normalise(extract(image)): the two halves are apart because training caches what the first one gives."""

    channels: int  # of y
    size: tuple[int, int]  # height and width of y's grid
    input_size: tuple[int, int]  # height and width that images are resized to
    drawable: bool  # y is an image: its reconstruction can be looked at
    weight: Tensor | None  # (C, 1, 1), of each channel's log-likelihood; None where y holds the image once

    @property
    def dims(self) -> int:
        """D, the number of dimensions of y."""
        return self.channels * self.size[0] * self.size[1]

    @abstractmethod
    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """The part without learned numbers, from an image in [0, 1] of any size."""

    @abstractmethod
    def normalise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """The rest of the way to y."""

    @abstractmethod
    def by_place(self, values: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Sum values of y's dimensions by place, on the finest grid that y knows; the total stays the same."""

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """y of images in [0, 1]."""
        return self.normalise(self.extract(image))


class Pixels(Representation):
    """y is the image itself at the working size."""

    drawable = True
    weight = None

    def __init__(self, *, channels: int, size: tuple[int, int], levels: int | None = None) -> None:
        """Choose the working size.

        Args:
            channels: Of the image.
            size: Height and width.
            levels: Largest level where the likelihood is discrete: y is then put on the grid of levels.
        """
        super().__init__()
        self.channels, self.size, self.input_size, self.levels = channels, size, size, levels

    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Resize."""
        return resize(image, self.size)

    def normalise(self, extracted: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Round to levels where there are any."""
        return extracted if self.levels is None else torch.floor(extracted * self.levels + OFF_HALF) / self.levels

    def by_place(self, values: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w"]:
        """Sum over channels."""
        return values.sum(dim=1)


class Features(Representation):
    """y is a backbone's maps, averaged over 3x3 places or not, each channel standardised over the training set.

    Maps of several strides are put on the coarsest one's grid, finer places becoming channels, which loses nothing.

    Source: the averaging is PatchCore's (Roth et al. 2022, "Towards total recall in industrial anomaly detection",
    eq. 2); the likelihood of a VAE takes the place of its memory bank.
    """

    drawable = False
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        input_size: tuple[int, int],
        smooth: bool = True,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Choose the size that images are resized to.

        Args:
            backbone: Frozen network with its strides.
            input_size: Height and width, multiples of the largest stride.
            smooth: Average over 3x3 places: steadies textures, and hides defects of a few pixels.
            weights: Of each stride's log-likelihood in the composite; default: all equal. Scaled to a mean of one over
                the dimensions of y, so that figures per dimension keep their scale.

        Raises:
            ValueError: The size is not a multiple of the stride, or there is not one weight for each stride.
        """
        super().__init__()
        coarsest = max(backbone.strides)
        if input_size[0] % coarsest or input_size[1] % coarsest:
            msg = f"size {input_size[0]} x {input_size[1]} is not a multiple of the backbone's stride {coarsest}"
            raise ValueError(msg)
        shares = [1.0] * len(backbone.strides) if weights is None else list(weights)
        if len(shares) != len(backbone.strides) or min(shares) <= 0:
            msg = f"{len(backbone.strides)} strides need as many weights above 0, not {shares}"
            raise ValueError(msg)
        self.backbone, self.input_size, self.smooth = backbone, input_size, smooth
        self.size = (input_size[0] // coarsest, input_size[1] // coarsest)
        self._factors = [coarsest // stride for stride in backbone.strides]
        self._groups = [width * factor**2 for width, factor in zip(backbone.channels, self._factors, strict=True)]
        self.channels = sum(self._groups)
        each = torch.cat([torch.full((n,), float(share)) for n, share in zip(self._groups, shares, strict=True)])
        self.register_buffer("weight", (each / each.mean())[:, None, None] if len(shares) > 1 else None)
        self.register_buffer("mean", torch.zeros(self.channels, 1, 1))
        self.register_buffer("std", torch.ones(self.channels, 1, 1))

    def extract(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Resize, run the backbone, average; grey images are shown to it as three equal channels."""
        return self.arrange(self.backbone(resize(image, self.input_size).expand(-1, 3, -1, -1)))

    def arrange(self, maps: Sequence[Float[Tensor, "B C h2 w2"]]) -> Float[Tensor, "B D h w"]:
        """Average the backbone's maps, and put them on one grid."""
        if self.smooth:
            maps = [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]
        return torch.cat([F.pixel_unshuffle(m, f) for m, f in zip(maps, self._factors, strict=True)], dim=1)

    def normalise(self, extracted: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        """Standardise each channel of each stride."""
        return (extracted - self.mean) / self.std

    def by_place(self, values: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h2 w2"]:
        """Sum over channels on the finest stride's grid; a coarser stride's value is divided among its finer places."""
        finest = max(self._factors)
        total = torch.zeros(())
        for part, factor in zip(self._parts(values), self._factors, strict=True):
            places = F.pixel_shuffle(part, factor).sum(dim=1)
            total = total + spread(places, (finest // factor, finest // factor))
        return total

    @torch.no_grad()
    def standardise(self, batches: Iterable[Float[Tensor, "B D h w"]]) -> None:
        """Set mean and standard deviation of every channel from extracted features, gone through once."""
        sums = [torch.zeros(3, width, dtype=torch.float64) for width in self.backbone.channels]
        for batch in batches:
            for part, factor, stride in zip(self._parts(batch), self._factors, sums, strict=True):
                values = F.pixel_shuffle(part, factor).transpose(0, 1).flatten(1).double()  # channel, all places
                stride += torch.stack(
                    [torch.ones(len(values)) * values.shape[1], values.sum(1), values.square().sum(1)]
                )
        count, total, square = torch.cat(sums, dim=1)
        mean = total / count
        # A channel that is the same everywhere says nothing; it must not divide by nothing either.
        std = (square / count - mean.square()).clamp(min=1e-8).sqrt()
        repeats = torch.cat(
            [torch.full((c,), f**2) for c, f in zip(self.backbone.channels, self._factors, strict=True)]
        )
        self.mean.copy_(mean.repeat_interleave(repeats)[:, None, None])
        self.std.copy_(std.repeat_interleave(repeats)[:, None, None])

    def _parts(self, values: Float[Tensor, "B D h w"]) -> list[Float[Tensor, "B D2 h w"]]:
        """The channels of each stride."""
        starts = [sum(self._groups[:i]) for i in range(len(self._groups))]
        return [values[:, start : start + n] for start, n in zip(starts, self._groups, strict=True)]
