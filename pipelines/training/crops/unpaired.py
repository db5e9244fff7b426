"""The training of models that mend without pairs: what `train_crops` does not share with others."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.data.crop_images import Photos
from pipelines.jobfile.job import Job
from pipelines.models.model_file import LEARNED, RestorationMetadata
from pipelines.models.session import RestoringSession
from pipelines.training.crops.fit import CropRecipe
from pipelines.training.crops.fit_adversarial import Opposition
from pipelines.training.crops.fit_unpaired import FitUnpaired
from pipelines.training.crops.kind import OPTIONS, CropTraining, common_problems
from pipelines.training.crops.plan import Split, read_unpaired
from pipelines.training.crops.restorer import opposition_of, part_of, sharpness, with_error_bars
from pipelines.training.model_card import write_restoration_card
from pipelines.training.promotion import Decision
from vaecore.damage.degradations import grain
from vaecore.graphs.export import export_restoration
from vaecore.graphs.restoration import RestorationGraph
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import SIZES, Restorer
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import unpaired

log = logging.getLogger(__name__)

OWN_OPTIONS = (OPTIONS - {"data.group"}) | {
    "data.degraded",
    "data.clean",
    "train.adversarial",
    "train.adversarial_loss",
}
GRAIN_CROPS = 256  # of each folder, that the noise to begin with is estimated on
LEAST_NOISE = 2 / 255


class UnpairedTraining(CropTraining[FitUnpaired, RestorationGraph, RestorationMetadata]):
    """Clean images, and damaged ones that have nothing to do with them, make a model that mends."""

    export = staticmethod(export_restoration)
    session, metadata, figure = RestoringSession, RestorationMetadata, "psnr"
    told = "PSNR {:.2f} dB against the champion's {:.2f}, under the damage that the challenger has learned,"

    def __init__(self, job: Job) -> None:
        """Choose what the job leaves open. See `CropTraining`."""
        self.task = unpaired()[job.task]
        super().__init__(job)

    def problems(self) -> Iterator[str]:
        """Options of other tasks."""
        yield from common_problems(self.job, OWN_OPTIONS)

    def read(self, image_format: ImageFormat) -> tuple[Photos, Split]:
        """Clean and damaged images."""
        return read_unpaired(self.job, image_format, self.rests)

    def does(self, channels: int) -> tuple[str, ...]:
        """Task and channels."""
        return self.job.task, f"{channels} channel(s)", *sharpness(self.job.train.adversarial)

    def champion_does(self, metadata: RestorationMetadata) -> tuple[str, ...]:
        """The same of a champion."""
        return metadata.task, f"{metadata.channels} channel(s)", *sharpness(metadata.adversarial)

    def fitted(self, photos: Photos, split: Split) -> Callable[[CropRecipe], FitUnpaired]:
        """A restorer with as many channels as the images, and a damage that begins with noise as strong as theirs."""
        channels, (widths, blocks) = photos.image_format.channels, SIZES[self.size]
        network = Restorer(channels=channels, outputs=channels, widths=widths, blocks=blocks)
        scale = first_guess(photos, split)
        log.info("the damaged images are grainier, as by noise of %.1f 8-bit levels; the rest is learned", 255 * scale)
        return partial(
            FitUnpaired, network, GaussianLikelihood(), photos, split, scale,
            damage=Opposition(weight=1.0, kind=self.job.train.adversarial_loss), opposition=opposition_of(self.job),
        )  # fmt: skip

    def choices(self, photos: Photos) -> Sequence[Any]:
        """Network, and which images are damaged."""
        return [self.size, [str(file.path.parent) for file in photos.files]]

    def finish(self, module: FitUnpaired) -> tuple[RestorationGraph, dict[str, Any]]:
        """With error bars, of images that were damaged by what was learned."""
        graph, fields = with_error_bars(module)
        return graph, fields | {
            "scale": 1,
            "damage": LEARNED,
            "level": self.task.level,
            "strengths": (1.0, 1.0),
            "levels": (1.0,),
            "luma": False,
        }

    def pair(self, module: FitUnpaired, image: int, number: int) -> tuple[Tensor, Tensor]:
        """The middle of a clean image with the damage that was learned, and as it is."""
        y, c = module.damaged_middle(image, key=3 * 10**9 + number)
        return c, y

    def inputs(self, graph: RestorationGraph, c: Tensor, number: int) -> tuple[Tensor, ...]:
        """As of other models that mend."""
        return (part_of(c, graph.network.multiple, number),)

    def card(self, folder: Path, metadata: RestorationMetadata, decision: Decision, figures: dict[str, float]) -> str:
        """With what was never seen."""
        return write_restoration_card(folder, self.job, metadata, self.size, decision, figures)


@torch.no_grad()
def first_guess(photos: Photos, split: Split) -> float:
    """Standard deviation of white noise that would make clean images as grainy as the damaged ones."""
    found = []
    for name in ("train", "degraded"):
        random = np.random.default_rng(0)
        chosen = random.choice(np.array(split[name]), GRAIN_CROPS)
        crops = photos.image_format.to_unit(torch.from_numpy(photos.crops(chosen, 64, random)))
        found.append(float(grain(crops).square().mean()))
    if found[0] > found[1] + LEAST_NOISE**2:
        log.warning(
            "the clean images are grainier than the damaged ones (%.1f against %.1f 8-bit levels): unless the damage "
            "is softness, 'data.degraded' and 'data.clean' are swapped", *(255 * math.sqrt(each) for each in found),
        )  # fmt: skip
    return math.sqrt(max(found[1] - found[0], LEAST_NOISE**2))
