"""What a task is: facts and plain functions, no behaviour.

`Task` scores images, `Restoration` and `Unpaired` mend them, `Segmentation` labels pixels, `Colorization` colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaecore.representations import Representation
from vaecore.representations.image_format import ImageFormat

GraphBuilder = Callable[[nn.Module, ImageFormat, Representation], nn.Module]

# From clean images and a strength for each, with a generator where there is chance, to what the network is given.
Damage = Callable[[Float[Tensor, "B C H W"], Float[Tensor, " B"], torch.Generator], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One choice of y, and the recipe that trains a network on it when the job file says nothing else."""

    summary: str  # a few words for people
    network: Callable[..., nn.Module]  # called with channels, size, likelihood and the job's model options
    likelihoods: tuple[str, ...]  # names that the job file may choose from; the first is the default
    least_scale: float  # no scale of p(y|z) is smaller: below it, differences mean nothing
    batch: int  # images in each step
    learning_rate: float  # peak of the one-cycle schedule
    steps: tuple[int, int, int]  # optimiser steps: at least, for each training image, at most
    patience: int | None  # checks without a better held-out ELBO that end training; None: keep the last weights
    longest: tuple[int, int]  # longest side that images are resized to: their own within these limits

    # Where y is features of a backbone:
    strides: tuple[int, ...] = ()  # reductions at which its maps are taken; none: y is the image
    deep_strides: tuple[int, ...] = ()  # the same for a deep VAE
    whole: bool = False  # averaged over the image
    experts: tuple[str, ...] | None = None  # beside a linear VAE, in closed form; None: the VAE is a deep one

    most_images: int = 200_000  # of a folder, where the job says nothing: bounds the disk that their y takes
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network, where the job says nothing
    few_images: int = 0  # below this many training images the encoder sees them noisy

    @property
    def features(self) -> bool:
        """Whether y is features of a frozen backbone, rather than the image."""
        return bool(self.strides)

    def steps_for(self, images: int) -> int:
        """Enough passes for a few images, a bounded time for many."""
        least, each, most = self.steps
        return min(most, max(least, each * images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Scoring: everything else (training, export, batch job, report) is shared."""

    summary: str  # one sentence for people
    targets: Mapping[str, Target]  # what the job file's model.target may say; the first is the default
    graph: GraphBuilder  # what gets exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """Mending images: how clean ones are damaged says it all; training, export, batch job and report are shared."""

    summary: str  # one sentence for people
    damages: Mapping[str, Damage]  # kinds of damage that the job file may choose from; the first is the default
    level: str  # what a strength is, in words, with its unit
    strengths: tuple[float, float]  # training draws between these, unless the job names one
    levels: tuple[float, ...]  # that `evaluate` measures at
    scales: tuple[int, ...] = (1,)  # how much larger the result is; where there is a choice, this is the strength, too
    luma: bool = False  # PSNR and SSIM of the luma alone, without a border of `scale` pixels, as papers do


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """Mending images whose damage is only known from damaged images: it is learned."""

    summary: str  # one sentence for people
    level: str  # what the strength of the damage is, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Labelling pixels: y comes from files of its own; training, export, batch job and report are shared."""

    summary: str  # one sentence for people
    latent_channels: int  # in each cell of the coarsest grid
    gain: tuple[float, float]  # training brightens and darkens images by factors between these


@dataclass(frozen=True, slots=True, kw_only=True)
class Colorization:
    """Colouring grey images: y is the chroma of colour images, c their luma; the rest is shared."""

    summary: str  # one sentence for people
    latent_channels: int  # of the image's one vector
    strides: tuple[int, ...]  # of the frozen network's maps
    side: int  # rows and columns that the network works at
    short_side: int  # of training images, which are brought to it
    least_view: float  # share of that that a training view shows along each side, at least
