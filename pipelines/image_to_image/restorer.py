"""The training of restorers: the damage that a job asks for, and what `train_crops` does not share with others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.data.crop_images import CropImages
from pipelines.image_to_image.error_bars import measure_error_bars
from pipelines.image_to_image.fit import CropRecipe
from pipelines.image_to_image.kind import OPTIONS, CropTraining, find_common_problems
from pipelines.image_to_image.plan import Split, choose_recipe
from pipelines.image_to_image.restorer_module import FitRestorer
from pipelines.jobfile.job import Job
from pipelines.models.model_file import RestorationMetadata
from pipelines.models.session import RestoringSession
from pipelines.training.adversary import Opposition
from pipelines.training.model_card import write_restoration_card
from pipelines.training.options import find_adversarial_problems
from pipelines.training.promotion import Decision
from vaecore.damage.degradations import as_files
from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import SIZES, Restorer
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import Damage, Restoration, Unpaired, restorations

OWN_OPTIONS = OPTIONS | {
    "model.scale", "model.damage", "model.level", "train.adversarial", "train.adversarial_loss"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingDamage:
    """The damage that a job asks for, every choice made."""

    task: Restoration
    name: str
    strengths: tuple[float, float]
    largest: int = 255  # value of the files

    @property
    def levels(self) -> tuple[float, ...]:
        """What it is measured at."""
        return self.task.levels if self.strengths[0] < self.strengths[1] else self.strengths[:1]

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Damage each image as strongly as chance will have it: what the network is given in training.

        Every other one is clipped and rounded as files are, which hold no noise below black: the rest is as papers have
        it. A network that has seen the latter only takes clipped noise for light, and is sure of it.
        """
        files = torch.rand(len(y), generator=generator, device=generator.device) < 1 / 2
        c = self._apply(y, generator, self.strengths)
        return torch.where(files.to(y.device)[:, None, None, None], as_files(c, self.largest), c)

    def apply_as_files(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Damage images that are all files, as those of a folder are, no weaker than is measured: for error bars.

        One calibration serves all strengths. Under hardly any noise the scale is at its floor, and too wide: counted
        in, it would make error bars too narrow where there is something to mend.
        """
        levels = self.levels
        strengths = (levels[0], levels[-1]) if len(levels) > 1 else self.strengths
        return as_files(self._apply(y, generator, strengths), self.largest)

    def _apply(self, y: Tensor, generator: torch.Generator, strengths_between: tuple[float, float]) -> Tensor:
        low, high = strengths_between
        strengths = low + (high - low) * torch.rand(len(y), generator=generator, device=generator.device)
        damage: Damage = self.task.damages[self.name]
        return damage(y, strengths.to(y), generator)


class RestoringTraining(CropTraining[FitRestorer, RestorationGraph, RestorationMetadata]):
    """What models that mend share, with pairs or without.

    Attributes:
        task: What is mended.
        scale: By which the result is larger.
    """

    export = staticmethod(export_restoration)
    session, metadata, figure = RestoringSession, RestorationMetadata, "psnr"
    task: Restoration | Unpaired
    scale: int = 1

    def describe_model(self, channels: int) -> tuple[str, ...]:
        """Name task, channels, scale, and how sharp: models that prefer sharp to faithful are not compared by PSNR."""
        return _words(self.job.task, channels, self.scale, self.job.train.adversarial)

    def describe_champion(self, metadata: RestorationMetadata) -> tuple[str, ...]:
        """Name the same of a champion."""
        return _words(metadata.task, metadata.channels, metadata.scale, metadata.adversarial)

    def build_network(self, images: CropImages) -> Restorer:
        """Build a restorer with as many channels as the images."""
        channels, (widths, blocks) = images.image_format.channels, SIZES[self.size]
        return Restorer(channels=channels, outputs=channels, widths=widths, blocks=blocks, upscale=self.scale)

    @abstractmethod
    def describe_damage(self) -> dict[str, Any]:
        """Return what the metadata say of the damage."""

    def finish(self, module: FitRestorer) -> tuple[RestorationGraph, dict[str, Any]]:
        """Measure error bars, and build the graph with them."""
        bars = measure_error_bars(module, module.split["calibrate"])
        graph = RestorationGraph(module.network, module.likelihood, bars.factor, bars.exponent).eval()
        return graph, self.describe_damage() | {
            "scale": self.scale,
            "level": self.task.level,
            "size_multiple": module.network.multiple,
            "halo": module.network.halo,
            "likelihood": "gaussian",
            "outputs": OUTPUTS,
            "intervals": bars.intervals,
        }

    def make_pair(self, module: FitRestorer, image: int, number: int) -> tuple[Tensor, Tensor]:
        """Return the middle damaged, and as it is."""
        y, c = module.damage_middle(image, key=3 * 10**9 + number)
        return c, y

    def make_inputs(self, graph: RestorationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """Cut a part that lacks some rows above and columns on the right."""
        multiple = graph.network.multiple
        down, left = (min(number, length // multiple - 1) * multiple for length in c.shape[1:3])
        return (c[:, down:, : c.shape[2] - left].contiguous(),)

    def write_card(
        self, folder: Path, metadata: RestorationMetadata, decision: Decision, figures: dict[str, float]
    ) -> str:
        """Write what it mends, and the error bars."""
        return write_restoration_card(folder, self.job, metadata, self.size, decision, figures)


def _words(task: str, channels: int, scale: int, adversarial: float | None) -> tuple[str, ...]:
    sharp = () if adversarial is None else (f"sharp before faithful ({adversarial:g})",)
    return task, f"{channels} channel(s)", f"scale {scale}", *sharp


class RestorerTraining(RestoringTraining):
    """Clean images and how they are damaged make a model that mends."""

    task: Restoration

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open. See `CropTraining`."""
        self.task = restorations()[job.task]
        super().__init__(job)
        table, scales = job.model, self.task.scales
        self.scale = table.scale or scales[0]
        low, high = (float(self.scale),) * 2 if len(scales) > 1 else self.task.strengths
        if table.level is not None:
            low = high = table.level
        self.damage = TrainingDamage(self.task, table.damage or next(iter(self.task.damages)), (low, high))

    def find_problems(self) -> Iterator[str]:
        """Yield damage, scale or level that the task does not know."""
        job, task, table = self.job, self.task, self.job.model
        yield from find_common_problems(
            job, OWN_OPTIONS if table.scale in (None, *task.scales) else OWN_OPTIONS - {"model.scale"}
        )
        if table.damage is not None and table.damage not in task.damages:
            yield f"'model.damage' is '{table.damage}'; the task {job.task} knows {', '.join(task.damages)}"
        low, high = task.strengths
        if table.level is not None and len(task.scales) > 1:
            yield f"'model.level' has no meaning for {job.task}, which has 'model.scale'"
        elif table.level is not None and not low <= table.level <= high:
            yield f"'model.level' is {table.level:g}: {task.level}, from {low:g} to {high:g}"
        yield from find_adversarial_problems(job)

    def read(self, image_format: ImageFormat) -> tuple[CropImages, Split]:
        """Read clean images."""
        self.damage = replace(self.damage, largest=image_format.maximum)
        return super().read(image_format)

    def choose_recipe(self, device: str) -> CropRecipe:
        """Choose larger crops where the result is larger."""
        return choose_recipe(self.job, self.size, device, self.scale)

    def build_fit(self, images: CropImages, split: Split) -> Callable[[CropRecipe], FitRestorer]:
        """Build a restorer that learns under the job's damage."""
        parts = self.build_network(images), GaussianLikelihood(), images, split, self.damage.apply
        return partial(FitRestorer, *parts, opposition=Opposition.of(self.job.train))

    def list_choices(self, images: CropImages) -> Sequence[Any]:  # noqa: ARG002 - of other kinds
        """List network and damage."""
        return [self.size, self.scale, self.damage.name, self.damage.strengths]

    def prepare_calibration(self, module: FitRestorer) -> FitRestorer:
        """Damage images as files hold them."""
        own = module.network, module.likelihood, module.images, module.split
        return FitRestorer(*own, self.damage.apply_as_files, module.recipe).eval()

    def describe_damage(self) -> dict[str, Any]:
        """Return the damage and its strengths."""
        damage = self.damage
        return {"damage": damage.name, "strengths": damage.strengths, "levels": damage.levels, "luma": self.task.luma}
