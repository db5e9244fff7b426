"""Models that colour grey images: the bound of a conditional VAE on chroma, PSNR on held-out images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.errors import DataError, JobError
from pipelines.image_to_image.error_bars import MOST_IMAGES, measure_error_bars
from pipelines.image_to_image.fit import CropRecipe, FitCrops
from pipelines.image_to_image.kind import OPTIONS, CropTraining, draw_noise, find_common_problems
from pipelines.image_to_image.plan import Split, read_images
from pipelines.jobfile.job import Job
from pipelines.models.model_file import ColorizationMetadata
from pipelines.models.session import ColorizingSession
from pipelines.restoration.colorizer import is_colourful
from pipelines.training.loop import repeatable
from pipelines.training.model_card import write_colorization_card
from pipelines.training.network import build_backbone
from pipelines.training.promotion import Decision
from vaecore.graphs.colorization import OUTPUTS, ColorizationGraph, colorization_loss, colourfulness, to_chroma, to_luma
from vaecore.graphs.export import export_colorization
from vaecore.graphs.restoration import psnr
from vaecore.likelihoods import Gaussian
from vaecore.networks import Colorizer
from vaecore.representations.backbones import Maps
from vaecore.representations.image_format import ImageFormat, resize
from vaecore.tasks import Colorization, colorizations

log = logging.getLogger(__name__)
OF_BACKBONE = {"model.backbone", "model.backbone_weights"}
OWN_OPTIONS = (OPTIONS | OF_BACKBONE | {"train.patience"}) - {"model.network", "train.crop"}
BATCH, LEARNING_RATE = 8, 1e-3
PATIENCE = 8  # checks without a better one that end training: a few hundred images are soon learned by heart


class FitColorizer(FitCrops[Colorizer]):
    """Raise the bound on log p(chroma | luma); watch the PSNR of held-out images, coloured at the mean of the prior."""

    watched = "select_psnr"
    unit = "held-out PSNR {:.2f} dB"
    upright = True  # the sky is above
    check_side = None  # images are looked at as a whole, as users' are

    def __init__(
        self,
        network: Colorizer,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        task: Colorization,
        recipe: CropRecipe,
        patience: int | None = None,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            images: Colour images, the shorter side of each `task.short_side` long.
            split: Which of them are trained on ("train") and looked at ("select").
            task: Says how large the network's images are, and training's views.
            recipe: Steps, batch, crop.
            patience: Checks without a better one that end training; default: `PATIENCE`.
        """
        super().__init__(network, images, split, recipe, 1)
        self.patience = patience or PATIENCE
        self._task = task

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides the view, which is resized to the network's, and the latents."""
        generator = self.make_generator(key)
        shares = torch.rand(4, generator=generator, device=generator.device).tolist()
        least, spans = self._task.least_view, []
        for length, size, place in zip(crops.shape[1:3], shares[:2], shares[2:], strict=True):
            side = math.ceil(length * (least + (1 - least) * size))
            start = round((length - side) * place)
            spans.append(slice(start, start + side))
        y = resize(self.to_unit(crops[:, spans[0], spans[1]]), (self._task.side, self._task.side))
        noise = torch.randn((len(y), self.network.latent_channels, 1, 1), generator=generator, device=generator.device)
        side = self._task.side // self._task.strides[0]
        chroma = resize(to_chroma(y), (side, side))
        with repeatable(self.recipe.seed * 2_000_000_011 + key):
            return colorization_loss(self.network, to_luma(y), chroma, noise.to(y))

    def validation_step(self, middle: Tensor, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """PSNR at the mean of the prior, and how far the truth is from it."""
        y = self.to_unit(middle)
        predicted = self.predict(y)
        self.log("select_psnr", psnr(predicted.mean, y).mean(), batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", predicted.log_prob(y).mean(), batch_size=1, on_epoch=True)

    def restore_middle(self, image: int, key: int) -> tuple[Tensor, Gaussian]:  # noqa: ARG002 - as of other trainings
        """The middle of one image (1, 3, H, W), and its colours as the graph gives them from its luma."""
        y = self.to_unit(self.read_middle(image))
        return y, self.predict(y)

    def predict(self, y: Tensor, noise: Tensor | None = None) -> Gaussian:
        """Colours of colour images (B, 3, H, W), from their luma alone: at the mean of the prior, or a sample."""
        graph = ColorizationGraph(self.network, self._task.side).to(y.device)
        if noise is None:
            noise = y.new_zeros(len(y), self.network.latent_channels)
        found = graph(to_luma(y).permute(0, 2, 3, 1), noise)
        mean, scale = (found[name].permute(0, 3, 1, 2) for name in ("restored", "restored_scale"))
        return Gaussian(mean, scale.log())


@torch.no_grad()
def measure_gain(module: FitColorizer, indices: Sequence[int]) -> float:
    """By what the chroma of samples is multiplied so that they are as colourful as images nothing was learned from.

    Args:
        module: The trained network with its images, on the CPU.
        indices: Of held-out images.

    Returns:
        The ratio of the mean colourfulness, between 1/4 and 4.
    """
    true, made = 0.0, 0.0
    for number, image in enumerate(indices[:MOST_IMAGES]):
        y = module.to_unit(module.read_middle(image))
        generator = torch.Generator().manual_seed(number)
        noise = torch.randn((1, module.network.latent_channels), generator=generator)
        sample = module.predict(y, noise).mean
        true, made = true + float(colourfulness(y)), made + float(colourfulness(sample.clamp(0, 1)))
    return min(4.0, max(0.25, true / max(made, 1e-6)))


class ColorizerTraining(CropTraining[FitColorizer, ColorizationGraph, ColorizationMetadata]):
    """Colour images make a model that colours grey ones."""

    budget = "{steps} steps of {batch} views"
    export = staticmethod(export_colorization)
    session, metadata = ColorizingSession, ColorizationMetadata
    parity = 4e-3  # one 8-bit level, since the file's weights are in half precision
    figure = "colour_psnr"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open. See `CropTraining`."""
        super().__init__(job)
        self.task = colorizations()[job.task]

    def find_problems(self) -> Iterator[str]:
        """A batch that has no halves."""
        yield from find_common_problems(self.job, OWN_OPTIONS)
        if self.job.train.batch == 1:
            yield "'train.batch' is 1: one half of a batch trains the latents, the other the mean; give at least 2"

    def read(self, image_format: ImageFormat) -> tuple[CropImages, Split]:
        """Images with colours, brought to one size; and the frozen network, whose features they are seen by."""
        job = self.job
        if image_format.channels == 1:
            raise JobError(
                f"{job.path}: the images under {job.data.images} are grey: colours are learned from colour ones"
            )
        self.backbone = build_backbone(job, Maps(self.task.strides), (self.task.side, self.task.side))
        images, split = read_images(job, image_format, self.calibrated, short_side=self.task.short_side)
        return images, _with_colours(images, split, job.data.images)

    def describe_model(self, channels: int) -> tuple[str, ...]:  # noqa: ARG002 - of other kinds
        """The task."""
        return (self.job.task,)

    def describe_champion(self, metadata: ColorizationMetadata) -> tuple[str, ...]:
        """The same of a champion."""
        return (metadata.task,)

    def choose_recipe(self, device: str) -> CropRecipe:  # noqa: ARG002 - of other kinds
        """Crops are whole images along their shorter side."""
        table = self.job.train
        return CropRecipe(
            steps=table.steps or 1,
            batch=table.batch or BATCH,
            crop=self.task.short_side,
            learning_rate=table.learning_rate or LEARNING_RATE,
            seed=table.seed,
        )

    def build_fit(self, images: CropImages, split: Split) -> Callable[[CropRecipe], FitColorizer]:
        """A decoder on the frozen network."""
        network = Colorizer(self.backbone, latent_channels=self.task.latent_channels)
        return partial(FitColorizer, network, images, split, self.task, patience=self.job.train.patience)

    def list_choices(self, images: CropImages) -> Sequence[Any]:  # noqa: ARG002 - of other kinds
        """Task and frozen network."""
        return [self.task.summary, self.backbone.digest()]

    def finish(self, module: FitColorizer) -> tuple[ColorizationGraph, dict[str, Any]]:
        """With the gain of samples, and error bars."""
        gain = measure_gain(module, module.split["calibrate"])
        bars = measure_error_bars(module, module.split["calibrate"], repeats=1)
        return ColorizationGraph(module.network, self.task.side, gain, bars.factor, bars.exponent).eval(), {
            "channels": 1,
            "size_multiple": 1,
            "halo": None,
            "likelihood": "gaussian",
            "outputs": OUTPUTS,
            "side": self.task.side,
            "latents": self.task.latent_channels,
            "gain": gain,
            "backbone": self.backbone.name,
            "intervals": bars.intervals,
        }

    def make_pair(self, module: FitColorizer, image: int, number: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - of others
        """Luma of a whole image, and its colours."""
        y = module.to_unit(module.read_middle(image))
        return to_luma(y), y

    def make_inputs(self, graph: ColorizationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """Every few rows and columns, and noise."""
        part = c[:, :: number + 1, :: 2 * number + 1].contiguous()
        return part, draw_noise((1, graph.network.latent_channels), number)

    def write_card(
        self, folder: Path, metadata: ColorizationMetadata, decision: Decision, figures: dict[str, float]
    ) -> str:
        """With the frozen network and the error bars."""
        return write_colorization_card(folder, self.job, metadata, decision, figures)


def _with_colours(images: CropImages, split: Split, folder: Path) -> Split:
    """A split without the images that are grey: that they are is no news about colours.

    Raises:
        DataError: None is left in a part of it.
    """
    found: Split = {
        name: tuple(index for index in indices if is_colourful(images.image(index))) for name, indices in split.items()
    }
    if grey := sum(map(len, split.values())) - sum(map(len, found.values())):
        log.warning("left out %d grey images", grey)
    if empty := [name for name, indices in found.items() if not indices]:
        raise DataError(f"too few images under {folder} have colours: none is left to {empty[0]}")
    return found
