"""The training of models that label pixels: what `train_crops` does not share with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.images.label_images import LabelFolder
from pipelines.jobfile.job import Job
from pipelines.models.model_file import SegmentationMetadata
from pipelines.models.session import SegmentingSession
from pipelines.restoration.quality import compare_labels
from pipelines.restoration.segmenter import classes_of
from pipelines.training.crops.fit import CropRecipe
from pipelines.training.crops.fit_segmenter import FitSegmenter
from pipelines.training.crops.kind import OPTIONS, CropTraining, common_problems, noise_of
from pipelines.training.crops.plan import Split, read_images
from pipelines.training.error_bars import measure_temperature
from pipelines.training.model_card import write_segmentation_card
from pipelines.training.promotion import Decision
from vaecore.graphs.export import export_segmentation
from vaecore.graphs.segmentation import OUTPUTS, SegmentationGraph
from vaecore.networks import SIZES, ConditionalVAE
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import segmentations

OWN_OPTIONS = OPTIONS | {"data.labels", "model.classes"}


class SegmenterTraining(CropTraining[FitSegmenter, SegmentationGraph, SegmentationMetadata]):
    """Images and labels of their pixels make a model that labels."""

    rests = "probabilities"
    export = staticmethod(export_segmentation)
    session, metadata, measured = SegmentingSession, SegmentationMetadata, ("temperature",)
    apart = "probabilities are {:.2g} apart"
    figure, told = "dice", "Dice {:.3f} against the champion's {:.3f}"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open, and find the labels. See `CropTraining`."""
        super().__init__(job)
        assert job.data.labels is not None  # noqa: S101 - it was one of the problems
        self.task = segmentations()[job.task]
        self.classes = job.model.classes or ("background", "object")
        self.labels = LabelFolder.find(job.data.labels, len(self.classes))

    def problems(self) -> Iterator[str]:
        """No labels."""
        yield from common_problems(self.job, OWN_OPTIONS)
        if self.job.data.labels is None:
            yield "'data.labels' is missing: name the folder of label images, which have the names of the images"

    def read(self, image_format: ImageFormat) -> tuple[Photos, Split]:
        """Images with labels."""
        return read_images(self.job, image_format, self.rests, self.labels)

    def does(self, channels: int) -> tuple[str, ...]:
        """Task, classes and channels."""
        return self.job.task, ", ".join(self.classes), f"{channels} channel(s)"

    def champion_does(self, metadata: SegmentationMetadata) -> tuple[str, ...]:
        """The same of a champion."""
        return metadata.task, ", ".join(metadata.classes), f"{metadata.channels} channel(s)"

    def fitted(self, photos: Photos, split: Split) -> Callable[[CropRecipe], FitSegmenter]:
        """A conditional VAE with as many channels as the images."""
        widths, blocks = SIZES[self.size]
        network = ConditionalVAE(
            channels=photos.image_format.channels, classes=len(self.classes),
            latent_channels=self.task.latent_channels, widths=widths, blocks=blocks,
        )  # fmt: skip
        return partial(FitSegmenter, network, photos, split, self.task.gain)

    def choices(self, photos: Photos) -> Sequence[Any]:
        """Network and labels."""
        return [self.size, self.classes, self.labels.stamp(photos.files)]

    def finish(self, module: FitSegmenter) -> tuple[SegmentationGraph, dict[str, Any]]:
        """With the temperature of the probabilities."""
        temperature = measure_temperature(module, module.split["calibrate"])
        return SegmentationGraph(module.network, temperature).eval(), {
            "size_multiple": module.network.multiple,
            "halo": module.network.halo,
            "likelihood": "categorical",
            "outputs": OUTPUTS,
            "classes": self.classes,
            "latent_channels": self.task.latent_channels,
            "temperature": temperature,
        }

    def pair(self, module: FitSegmenter, image: int, number: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - of others
        """The middle and its labels."""
        return module.pair(module.middle(image))

    def inputs(self, graph: SegmentationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """A part that lacks some rows below, and noise."""
        multiple = graph.network.multiple
        part = c[:, : c.shape[1] - min(number, c.shape[1] // multiple - 1) * multiple].contiguous()
        cells = (1, part.shape[1] // multiple, part.shape[2] // multiple, graph.network.latent_channels)
        return part, noise_of(cells, number)

    def merit(self, restored: Tensor, y: Tensor) -> Tensor:
        """Dice, mean over the classes."""
        made, true = classes_of(restored[0].permute(1, 2, 0).numpy()), y[0, 0].numpy().astype(np.uint8)
        return torch.tensor([compare_labels(made, true, len(self.classes))["dice"]], dtype=torch.float64)

    def card(self, folder: Path, metadata: SegmentationMetadata, decision: Decision, figures: dict[str, float]) -> str:
        """With the names of the classes."""
        return write_segmentation_card(folder, self.job, metadata, self.size, decision, figures)
