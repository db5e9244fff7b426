"""Models that label pixels: the bound of a conditional VAE on labels, Dice on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.data.crop_images import CropImages
from pipelines.data.splits import SplitName
from pipelines.image_to_image.error_bars import KEPT, MOST_IMAGES, REPEATS
from pipelines.image_to_image.fit import CropRecipe, FitCrops
from pipelines.image_to_image.kind import OPTIONS, CropTraining, draw_noise, find_common_problems
from pipelines.image_to_image.plan import Split, read_images
from pipelines.images.label_images import LabelFolder
from pipelines.jobfile.job import Job
from pipelines.models.model_file import SegmentationMetadata
from pipelines.models.session import SegmentingSession
from pipelines.restoration.quality import compare_labels
from pipelines.restoration.segmenter import classes_of
from pipelines.training.model_card import write_segmentation_card
from pipelines.training.promotion import Decision
from pipelines.training.temperature import fit_temperature
from vaecore.graphs.export import export_segmentation
from vaecore.graphs.segmentation import OUTPUTS, SegmentationGraph, segmentation_loss
from vaecore.networks import SIZES, ConditionalVAE
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import segmentations

OWN_OPTIONS = OPTIONS | {"data.labels", "model.classes"}
LIGHT = 0.1  # of the range of values: how far training shifts the brightness


class FitSegmenter(FitCrops[ConditionalVAE]):
    """Raise the bound on log p(labels | image); watch Dice on the middles of held-out images."""

    watched = "select_dice"
    unit = "held-out Dice {:.3f}"

    def __init__(
        self,
        network: ConditionalVAE,
        images: CropImages,
        split: Mapping[SplitName, Sequence[int]],
        gain: tuple[float, float],
        recipe: CropRecipe,
    ) -> None:
        """Tie a network to its data and its budget.

        Args:
            network: To be trained.
            images: Images with labels.
            split: Which of them are trained on ("train") and looked at ("select").
            gain: Training brightens and darkens images by factors between these.
            recipe: Steps, batch, crop.
        """
        super().__init__(network, images, split, recipe, network.multiple)
        self._gain = gain

    def split_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] and their label maps (B, 1, H, W), from samples as they are on disk."""
        return self.to_unit(samples[..., :-1]), samples[..., -1:].permute(0, 3, 1, 2).to(torch.float32)

    def loss(self, crops: Tensor, key: int) -> Tensor:
        """What a step minimises; the key decides light and latents."""
        c, y = self.split_samples(crops)
        generator = self.make_generator(key)
        draws = torch.rand((2, len(c), 1, 1, 1), generator=generator, device=generator.device).to(c)
        low, high = self._gain
        lit = c * (low * (high / low) ** draws[0]) + LIGHT * (2 * draws[1] - 1)
        cells = [length // self.multiple for length in c.shape[-2:]]
        shape = (len(c), self.network.latent_channels, *cells)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(c)
        return segmentation_loss(self.network, lit.contiguous(memory_format=torch.channels_last), y, noise)

    def validation_step(self, middle: Tensor, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Dice at the mean of the prior, mean over the classes that are there and over images."""
        logits, y = self.predict(middle)
        labels = logits.argmax(dim=1, keepdim=True)
        made, true = (each[0, 0].cpu().numpy().astype(np.uint8) for each in (labels, y))
        found = compare_labels(made, true, self.network.classes)["dice"]
        log_p = self.network.likelihood(logits).log_prob(y).mean()
        self.log("select_dice", found, batch_size=1, on_epoch=True)
        self.log("select_log_likelihood", log_p, batch_size=1, on_epoch=True)

    def predict(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) at the mean of the prior, and the true label maps."""
        c, y = self.split_samples(samples)
        cells = [length // self.multiple for length in c.shape[-2:]]
        return self.network(c, c.new_zeros((len(c), self.network.latent_channels, *cells))), y


@torch.no_grad()
def measure_temperature(module: FitSegmenter, indices: Sequence[int]) -> float:
    """By what logits are divided so that probabilities are honest on images that nothing was learned from.

    Args:
        module: The trained network with its images, on the CPU.
        indices: Of held-out images.

    Returns:
        The temperature of the smallest negative log-likelihood, between 1/8 and 8.
    """
    logits, labels = [], []
    for number, image in enumerate(indices[:MOST_IMAGES]):
        found, y = module.predict(module.read_middle(image))
        by_pixel, true = found[0].flatten(1).T, y[0, 0].flatten().long()
        kept = torch.randperm(len(true), generator=torch.Generator().manual_seed(number))[: REPEATS * KEPT]
        logits.append(by_pixel[kept])
        labels.append(true[kept])
    return fit_temperature(torch.cat(logits), torch.cat(labels))


class SegmenterTraining(CropTraining[FitSegmenter, SegmentationGraph, SegmentationMetadata]):
    """Images and labels of their pixels make a model that labels."""

    calibrated = "probabilities"
    export = staticmethod(export_segmentation)
    session, metadata, measured = SegmentingSession, SegmentationMetadata, ("temperature",)
    difference = "probabilities are {:.2g} apart"
    figure, comparison = "dice", "Dice {:.3f} against the champion's {:.3f}"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open, and find the labels. See `CropTraining`."""
        super().__init__(job)
        assert job.data.labels is not None  # noqa: S101 - it was one of the problems
        self.task = segmentations()[job.task]
        self.classes = job.model.classes or ("background", "object")
        self.labels = LabelFolder.find(job.data.labels, len(self.classes))

    def find_problems(self) -> Iterator[str]:
        """No labels."""
        yield from find_common_problems(self.job, OWN_OPTIONS)
        if self.job.data.labels is None:
            yield "'data.labels' is missing: name the folder of label images, which have the names of the images"

    def read(self, image_format: ImageFormat) -> tuple[CropImages, Split]:
        """Images with labels."""
        return read_images(self.job, image_format, self.calibrated, self.labels)

    def describe_model(self, channels: int) -> tuple[str, ...]:
        """Task, classes and channels."""
        return self.job.task, ", ".join(self.classes), f"{channels} channel(s)"

    def describe_champion(self, metadata: SegmentationMetadata) -> tuple[str, ...]:
        """The same of a champion."""
        return metadata.task, ", ".join(metadata.classes), f"{metadata.channels} channel(s)"

    def build_fit(self, images: CropImages, split: Split) -> Callable[[CropRecipe], FitSegmenter]:
        """A conditional VAE with as many channels as the images."""
        widths, blocks = SIZES[self.size]
        network = ConditionalVAE(
            channels=images.image_format.channels, classes=len(self.classes),
            latent_channels=self.task.latent_channels, widths=widths, blocks=blocks,
        )  # fmt: skip
        return partial(FitSegmenter, network, images, split, self.task.gain)

    def list_choices(self, images: CropImages) -> Sequence[Any]:
        """Network and labels."""
        return [self.size, self.classes, self.labels.stamp(images.files)]

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

    def make_pair(self, module: FitSegmenter, image: int, number: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - of others
        """The middle and its labels."""
        return module.split_samples(module.read_middle(image))

    def make_inputs(self, graph: SegmentationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """A part that lacks some rows below, and noise."""
        multiple = graph.network.multiple
        part = c[:, : c.shape[1] - min(number, c.shape[1] // multiple - 1) * multiple].contiguous()
        cells = (1, part.shape[1] // multiple, part.shape[2] // multiple, graph.network.latent_channels)
        return part, draw_noise(cells, number)

    def measure(self, restored: Tensor, y: Tensor) -> Tensor:
        """Dice, mean over the classes."""
        made, true = classes_of(restored[0].permute(1, 2, 0).numpy()), y[0, 0].numpy().astype(np.uint8)
        return torch.tensor([compare_labels(made, true, len(self.classes))["dice"]], dtype=torch.float64)

    def write_card(
        self, folder: Path, metadata: SegmentationMetadata, decision: Decision, figures: dict[str, float]
    ) -> str:
        """With the names of the classes."""
        return write_segmentation_card(folder, self.job, metadata, self.size, decision, figures)
