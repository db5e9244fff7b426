"""The training of models that colour grey images: what `train_crops` does not share with others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.errors import DataError, JobError
from pipelines.jobfile.job import Job
from pipelines.models.model_file import ColorizationMetadata
from pipelines.models.session import ColorizingSession
from pipelines.restoration.colorizer import is_colourful
from pipelines.training.crops.fit import CropRecipe
from pipelines.training.crops.fit_colorizer import FitColorizer
from pipelines.training.crops.kind import OPTIONS, CropTraining, common_problems, noise_of
from pipelines.training.crops.plan import Split, read_images
from pipelines.training.error_bars import measure_error_bars, measure_gain
from pipelines.training.model_card import write_colorization_card
from pipelines.training.network import build_backbone
from pipelines.training.promotion import Decision
from vaecore.graphs.colorization import OUTPUTS, ColorizationGraph, to_luma
from vaecore.graphs.export import export_colorization
from vaecore.networks import Colorizer
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import colorizations

log = logging.getLogger(__name__)
OF_BACKBONE = {"model.backbone", "model.backbone_weights"}
OWN_OPTIONS = (OPTIONS | OF_BACKBONE | {"train.patience"}) - {"model.network", "train.crop"}
BATCH, LEARNING_RATE = 8, 1e-3


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

    def problems(self) -> Iterator[str]:
        """A batch that has no halves."""
        yield from common_problems(self.job, OWN_OPTIONS)
        if self.job.train.batch == 1:
            yield "'train.batch' is 1: one half of a batch trains the latents, the other the mean; give at least 2"

    def read(self, image_format: ImageFormat) -> tuple[Photos, Split]:
        """Images with colours, brought to one size; and the frozen network, whose features they are seen by."""
        job = self.job
        if image_format.channels == 1:
            raise JobError(
                f"{job.path}: the images under {job.data.images} are grey: colours are learned from colour ones"
            )
        self.backbone = build_backbone(job, self.task.strides)
        photos, split = read_images(job, image_format, self.rests, short_side=self.task.short_side)
        return photos, _with_colours(photos, split, job.data.images)

    def does(self, channels: int) -> tuple[str, ...]:  # noqa: ARG002 - of other kinds
        """The task."""
        return (self.job.task,)

    def champion_does(self, metadata: ColorizationMetadata) -> tuple[str, ...]:
        """The same of a champion."""
        return (metadata.task,)

    def recipe(self, device: str) -> CropRecipe:  # noqa: ARG002 - of other kinds
        """Crops are whole images along their shorter side."""
        table = self.job.train
        return CropRecipe(
            steps=table.steps or 1,
            batch=table.batch or BATCH,
            crop=self.task.short_side,
            learning_rate=table.learning_rate or LEARNING_RATE,
            seed=table.seed,
        )

    def fitted(self, photos: Photos, split: Split) -> Callable[[CropRecipe], FitColorizer]:
        """A decoder on the frozen network."""
        network = Colorizer(self.backbone, latent_channels=self.task.latent_channels)
        return partial(FitColorizer, network, photos, split, self.task, patience=self.job.train.patience)

    def choices(self, photos: Photos) -> Sequence[Any]:  # noqa: ARG002 - of other kinds
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

    def pair(self, module: FitColorizer, image: int, number: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - of others
        """Luma of a whole image, and its colours."""
        y = module.to_unit(module.middle(image))
        return to_luma(y), y

    def inputs(self, graph: ColorizationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """Every few rows and columns, and noise."""
        part = c[:, :: number + 1, :: 2 * number + 1].contiguous()
        return part, noise_of((1, graph.network.latent_channels), number)

    def card(self, folder: Path, metadata: ColorizationMetadata, decision: Decision, figures: dict[str, float]) -> str:
        """With the frozen network and the error bars."""
        return write_colorization_card(folder, self.job, metadata, decision, figures)


def _with_colours(photos: Photos, split: Split, folder: Path) -> Split:
    """A split without the images that are grey: that they are is no news about colours.

    Raises:
        DataError: None is left in a part of it.
    """
    found: Split = {
        name: tuple(index for index in indices if is_colourful(photos.image(index))) for name, indices in split.items()
    }
    if grey := sum(map(len, split.values())) - sum(map(len, found.values())):
        log.warning("left out %d images that are grey", grey)
    if empty := [name for name, indices in found.items() if not indices]:
        raise DataError(f"too few images under {folder} have colours: none is left to {empty[0]}")
    return found
