"""Restorers: the damage that a job asks for, how they are fitted, and what their training shares with no other kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.image_to_image.cost import count_multiplications
from pipelines.image_to_image.error_bars import measure_error_bars
from pipelines.image_to_image.fit import CropRecipe, FitCrops
from pipelines.image_to_image.kind import OPTIONS, CropTraining, find_common_problems
from pipelines.image_to_image.plan import Split, choose_recipe
from pipelines.jobfile.job import Job
from pipelines.models.model_file import RestorationMetadata
from pipelines.models.session import RestoringSession
from pipelines.training.adversary import AdversarialTraining, Adversary, Opposition
from pipelines.training.model_card import write_restoration_card
from pipelines.training.options import find_adversarial_problems
from pipelines.training.promotion import Decision
from vaecore.damage.degradations import as_files
from vaecore.graphs.colorization import to_luma
from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import OUTPUTS, RestorationGraph, psnr, restoration_loss
from vaecore.likelihoods import Gaussian, GaussianLikelihood
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


GREY = 4  # one of so many images of colour is made grey first: a model of colour images is given grey ones, too

Damaged = Callable[[Tensor, torch.Generator], Tensor]  # y to c, as strongly as chance will have it


class FitRestorer(AdversarialTraining, FitCrops[Restorer]):
    """Bring restored crops near clean ones; watch PSNR on the middles of held-out images.

    With an adversarial term, a discriminator sees the damaged image, enlarged, beside the clean or restored one.

    Source: the conditional PatchGAN of Isola et al. 2017, "Image-to-image translation with conditional adversarial
    networks", with R1 instead of batch normalisation and dropout.
    """

    watched = "select_psnr"
    unit = "held-out PSNR {:.2f} dB"

    def __init__(
        self,
        network: Restorer,
        likelihood: GaussianLikelihood,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        damaged: Damaged,
        recipe: CropRecipe,
        opposition: Opposition | None = None,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            likelihood: From its output to p(y|c).
            images: Clean images.
            split: Which of them are trained on ("train") and looked at ("select").
            damaged: From clean crops (B, C, H, W) in [0, 1] to what the network is given.
            recipe: Steps, batch, crop.
            opposition: The adversarial term, if any.
        """
        super().__init__(network, images, split, recipe, network.multiple * network.upscale)
        self.likelihood, self._damaged = likelihood, damaged
        self.adversary = None
        if opposition is not None:
            self.adversary = Adversary(2 * network.outputs, opposition, recipe.seed)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides the damage. A discriminator takes a step of its own."""
        y, c = self.damage_crops(self.to_unit(crops), self.make_generator(key))
        predicted = self._predict(c)
        error = restoration_loss(predicted, y)
        if self.adversary is None or (weight := self.adversary.opposition.weight_at(key, self.recipe.steps)) is None:
            return error
        restored, given = predicted.mean, self.network.enlarged(c)
        return error + self.adversary.oppose(
            key, weight, real=y, judged=restored, error=error, restored=restored, given=given
        )

    def validation_step(self, middle: Tensor, index: int) -> None:
        """PSNR under damage that is the same at every check."""
        y, c = self._damage_one(self.to_unit(middle), 10**9 + index)
        predicted = self._predict(c)
        self.log("select_psnr", psnr(predicted.mean, y).mean(), batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", predicted.log_prob(y).mean(), batch_size=1, on_epoch=True)

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:
        """The middle of one image (1, C, H, W), and p(y|c) of it under the damage that the key decides."""
        y, c = self.damage_middle(image, key)
        return y, self._predict(c)

    def damage_middle(self, image: int, key: int) -> tuple[Tensor, Tensor]:
        """Return the middle of one image (1, C, H, W), and the same under the damage that the key decides."""
        return self._damage_one(self.to_unit(self.read_middle(image)), key)

    def _damage_one(self, y: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return one image and the same damaged; as grey, where the key says so."""
        return self._damage(y, torch.tensor([key % GREY == 0]), self.make_generator(key))

    def damage_crops(self, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return clean crops and damaged ones, some as grey: the damage of a grey image is equal in all channels.

        A network that has seen noise of colour only takes that of a grey image for detail.
        """
        grey = torch.rand(len(y), generator=generator, device=generator.device) < 1 / GREY
        return self._damage(y, grey, generator)

    def _damage(self, y: Tensor, grey: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images and damaged ones, as grey where that is said."""
        if y.shape[1] == 1 or not grey.any():
            return y, self._damaged(y, generator)
        y = torch.where(grey.to(y.device)[:, None, None, None], to_luma(y), y)
        alone = self._damaged(y[grey][:, :1], generator).expand(-1, 3, -1, -1)
        c = alone.new_empty((len(y), *alone.shape[1:]))
        c[grey] = alone
        if not grey.all():
            c[~grey] = self._damaged(y[~grey], generator)
        return y, c

    def _predict(self, c: Tensor) -> Gaussian:
        predicted: Gaussian = self.likelihood(self.model(c.contiguous(memory_format=torch.channels_last)))
        return predicted


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
            "multiplications": count_multiplications(module.network, module.network.channels, module.network.multiple),
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
