"""The parts of a training that each kind of image-to-image model has of its own: `train_crops` calls them in order.

The kinds: `restorer`, `unpaired`, `segmenter`, `colorizer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from pipelines.data.crop_images import CropImages
from pipelines.errors import JobError
from pipelines.image_to_image.fit import CropRecipe, FitCrops
from pipelines.image_to_image.plan import Split, choose_recipe, read_images
from pipelines.jobfile.job import Job
from pipelines.models.model_file import CommonMetadata
from pipelines.models.session import AnyRestoring
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
        calibrated: What rests on the calibrate split, in words.
        budget: Network, steps and batch, in words.
        session: What the exported file runs in.
        metadata: Its kind.
        measured: Fields of the metadata that are figures of the training, too.
        parity: Most that the exported file may be apart from torch, and
        difference: how far it is, in words.
        export: Writes the file.
        figure: What versions are compared by, higher being better, and
        comparison: that of challenger and champion, in words.
        job: What is asked for.
        size: Of the network: a key of `SIZES`.
    """

    calibrated: str = "error bars"
    budget: str = "network {size}, {steps} steps of {batch} crops"
    session: type[AnyRestoring]
    metadata: type[MetadataT]
    measured: tuple[str, ...] = ()
    parity: float = PARITY
    difference: str = "{:.2g} of the range apart"
    export: Callable[[Any, Path, Mapping[str, Any]], None]
    figure: str
    comparison: str = "PSNR {:.2f} dB against the champion's {:.2f}"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open.

        Raises:
            JobError: The job asks for what its task cannot be.
        """
        self.job = job
        if problems := list(self.find_problems()):
            raise JobError("\n".join(f"{job.path}: {problem}" for problem in problems))
        self.size = job.model.network or ("M" if training_device() == "cuda" else "S")

    @abstractmethod
    def find_problems(self) -> Iterator[str]:
        """Yield what the job asks for that its task cannot be, a line each; all kinds have `find_common_problems`."""

    def read(self, image_format: ImageFormat) -> tuple[CropImages, Split]:
        """Read the images, and decide what each is for.

        Raises:
            KintsugiError: They are not what such a model learns from.
        """
        return read_images(self.job, image_format, self.calibrated)

    @abstractmethod
    def describe_model(self, channels: int) -> tuple[str, ...]:
        """Describe what the model will do, in words that a champion has to share."""

    @abstractmethod
    def describe_champion(self, metadata: MetadataT) -> tuple[str, ...]:
        """Describe what a champion does, in the same words."""

    def choose_recipe(self, device: str) -> CropRecipe:
        """Choose what the job leaves open of the training; the steps are a guess where it asks for minutes."""
        return choose_recipe(self.job, self.size, device)

    @abstractmethod
    def build_fit(self, images: CropImages, split: Split) -> Callable[[CropRecipe], FitT]:
        """Build the network, and return a function from a recipe to its training."""

    @abstractmethod
    def list_choices(self, images: CropImages) -> Sequence[Any]:
        """List what the weights depend on that `digest_work` does not know, for JSON."""

    def prepare_calibration(self, module: FitT) -> FitT:
        """Return the trained network with held-out images as it will be given them."""
        return module

    @abstractmethod
    def finish(self, module: FitT) -> tuple[GraphT, dict[str, Any]]:
        """Build the graph, with what held-out images teach; return it and this kind's own fields of the metadata."""

    @abstractmethod
    def make_pair(self, module: FitT, image: int, number: int) -> tuple[Tensor, Tensor]:
        """Return the middle of a held-out image as the network is given it and as it should be, both (1, C, H, W).

        Always the same for an image at a place in a list of them (`number`).
        """

    @abstractmethod
    def make_inputs(self, graph: GraphT, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """Cut a part of an image (1, H, W, C), another for each number, and add what else the graph takes."""

    def measure(self, restored: Tensor, y: Tensor) -> Tensor:
        """Return the figure of one image, (1,)."""
        return psnr(restored, y)

    @abstractmethod
    def write_card(self, folder: Path, metadata: MetadataT, decision: Decision, figures: dict[str, float]) -> str:
        """Write card.md into the bundle and return its text."""


AnyTraining = CropTraining[Any, Any, Any]


def find_common_problems(job: Job, options: Collection[str]) -> Iterator[str]:
    """Yield what a job asks for that no training on crops can be, a line each.

    Args:
        job: The job.
        options: Keys that have a meaning for its task.
    """
    unused = [key for key in job.set_options("data", "model", "train", "calibrate") if key not in options]
    yield from (f"'{key}' has no meaning for {job.task}; leave it out" for key in unused)
    if job.train.steps and job.train.minutes:
        yield "'train.steps' and 'train.minutes' both say how long: leave one out"


def draw_noise(shape: Sequence[int], number: int) -> Tensor:
    """Draw standard normal latents, others for each number; zeros for the first, which is what batch jobs take."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number)) * float(number > 0)
