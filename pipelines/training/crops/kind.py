"""What kinds of image-to-image model have of their own: `train_crops` asks for it, in this order.

See `train_restorer`, `train_segmenter`, `train_colorizer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from pipelines.data.crop_images import Photos
from pipelines.errors import JobError
from pipelines.jobfile.job import Job
from pipelines.models.model_file import CommonMetadata
from pipelines.models.session import AnyRestoring
from pipelines.training.crops.fit import CropRecipe, FitCrops
from pipelines.training.crops.plan import Split, choose_recipe, read_images
from pipelines.training.network import training_device
from pipelines.training.promotion import Decision
from vaecore.graphs.restoration import psnr
from vaecore.representations.image_format import ImageFormat

FitT = TypeVar("FitT", bound=FitCrops[Any])
GraphT = TypeVar("GraphT", bound=nn.Module)
MetadataT = TypeVar("MetadataT", bound=CommonMetadata)

PARITY = 1e-3  # of the range of an image: a quarter of an 8-bit level
OPTIONS = frozenset(
    {"data.train", "data.licence", "data.max_images", "data.group", "calibrate.fraction", "model.network"}
) | {f"train.{name}" for name in ("steps", "minutes", "batch", "crop", "learning_rate", "seed", "start")}


class CropTraining(ABC, Generic[FitT, GraphT, MetadataT]):
    """What one kind of image-to-image model has of its own, in the order in which `train_crops` asks for it.

    Attributes:
        rests: What rests on the calibrate split, in words.
        budget: Network, steps and batch, in words.
        session: What the exported file runs in.
        metadata: Its kind.
        measured: Fields of the metadata that are figures of the training, too.
        parity: Most that the exported file may be apart from torch, and
        apart: how far it is, in words.
        export: Writes the file.
        figure: What versions are compared by, higher being better, and
        told: that of challenger and champion, in words.
        job: What is asked for.
        size: Of the network: a key of `SIZES`.
    """

    rests: str = "error bars"
    budget: str = "network {size}, {steps} steps of {batch} crops"
    session: type[AnyRestoring]
    metadata: type[MetadataT]
    measured: tuple[str, ...] = ()
    parity: float = PARITY
    apart: str = "{:.2g} of the range apart"
    export: Callable[[Any, Path, Mapping[str, Any]], None]
    figure: str
    told: str = "PSNR {:.2f} dB against the champion's {:.2f}"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open.

        Raises:
            JobError: The job asks for what its task cannot be.
        """
        self.job = job
        if problems := list(self.problems()):
            raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
        self.size = job.model.network or ("M" if training_device() == "cuda" else "S")

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """What the job asks for that its task cannot be, a line each; `common_problems` are those of all kinds."""

    def read(self, image_format: ImageFormat) -> tuple[Photos, Split]:
        """The images, and what each is for.

        Raises:
            KintsugiError: They are not what such a model learns from.
        """
        return read_images(self.job, image_format, self.rests)

    @abstractmethod
    def does(self, channels: int) -> tuple[str, ...]:
        """What the model will do, in words that a champion has to share."""

    @abstractmethod
    def champion_does(self, metadata: MetadataT) -> tuple[str, ...]:
        """The same words of a champion."""

    def recipe(self, device: str) -> CropRecipe:
        """What the job leaves open of the training; the steps are a guess where it asks for minutes."""
        return choose_recipe(self.job, self.size, device)

    @abstractmethod
    def fitted(self, photos: Photos, split: Split) -> Callable[[CropRecipe], FitT]:
        """Build the network; from a recipe to the training of it."""

    @abstractmethod
    def choices(self, photos: Photos) -> Sequence[Any]:
        """What the weights depend on that `work_key` does not know, for JSON."""

    def judged(self, module: FitT) -> FitT:
        """The trained network with held-out images as it will be given them."""
        return module

    @abstractmethod
    def finish(self, module: FitT) -> tuple[GraphT, dict[str, Any]]:
        """What is exported, with what held-out images teach; and this kind's own fields of the metadata."""

    @abstractmethod
    def pair(self, module: FitT, image: int, number: int) -> tuple[Tensor, Tensor]:
        """What the network is given of the middle of a held-out image, and what it should give, both (1, C, H, W).

        Always the same for an image at a place in a list of them (`number`).
        """

    @abstractmethod
    def inputs(self, graph: GraphT, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """A part of an image (1, H, W, C), another for each number, and what else the graph takes."""

    def merit(self, restored: Tensor, y: Tensor) -> Tensor:
        """The figure of one image, (1,)."""
        return psnr(restored, y)

    @abstractmethod
    def card(self, folder: Path, metadata: MetadataT, decision: Decision, figures: dict[str, float]) -> str:
        """Write card.md into the bundle and return its text."""


AnyTraining = CropTraining[Any, Any, Any]


def common_problems(job: Job, options: Collection[str]) -> Iterator[str]:
    """What a job asks for that no training on crops can be, a line each.

    Args:
        job: The job.
        options: Keys that have a meaning for its task.
    """
    unused = [key for key in job.set_options("data", "model", "train", "calibrate") if key not in options]
    yield from (f"'{key}' has no meaning for {job.task}; leave it out" for key in unused)
    if job.train.steps and job.train.minutes:
        yield "'train.steps' and 'train.minutes' both say how long: leave one out"


def noise_of(shape: Sequence[int], number: int) -> Tensor:
    """Standard normal latents, others for each number; zeros for the first, which is what batch jobs take."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number)) * float(number > 0)
