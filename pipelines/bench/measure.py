"""How a baseline is measured: the images, splits and figures of the software itself, so that only methods differ."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.figures_of_merit import PixelFigures
from pipelines.anomaly.verdicts import Verdicts
from pipelines.base.progress import progress
from pipelines.batch.schema import Row
from pipelines.bench.peak import peak_memory
from pipelines.data.plan import Plan, make_plan, survey
from pipelines.data.splits import is_crossed
from pipelines.data.training_images import TrainingData, load_training_data
from pipelines.evaluation.anomalies import measure_scores
from pipelines.evaluation.defect_masks import GOOD, Masks
from pipelines.images import Decoded, Failed, ImageFile, find_images
from pipelines.jobfile.job import Job
from pipelines.models.inputs import decode_for
from pipelines.training.folds import make_folds
from pipelines.training.options import find_task
from vaecore.representations.image_format import resize

log = logging.getLogger(__name__)
BATCH = {"cpu": 1, "cuda": 32}  # images scored at once, as a session does

Answer = dict[str, Any]  # of a cell
Indices = Sequence[int]  # of training images


@dataclass(frozen=True, slots=True)
class Material:
    """What every row starts from: the job's choices and its images, decoded at the working size, in their splits."""

    job: Job
    plan: Plan
    data: TrainingData

    def folds(self) -> list[tuple[Indices, Indices]]:
        """Images to fit to and images to score, of each fold, as the software calibrates; none where it does not."""
        if not is_crossed(self.data.split):
            return []
        train = np.array(self.data.split["train"])
        folds = [train[fold] for fold in make_folds(train, self.data, self.job.train.seed)]
        return [(np.setdiff1d(train, fold).tolist(), fold.tolist()) for fold in folds]

    @property
    def facts(self) -> Answer:
        """What a row says of it."""
        return {"size": self.plan.size, "n_train": len(self.data.split["train"])}


def read_material(job: Job) -> Material:
    """Make the choices that the job leaves open, and read its images; no training time counts this.

    Features that an earlier cell extracted are removed: each row's training time counts its own.

    Raises:
        KintsugiError: Wrong usage or bad input; the message says what to do.
    """
    plan = make_plan(job, find_task(job), survey(job))
    data = load_training_data(job, plan)
    for path in data.folder.glob("features-*.npy"):
        path.unlink()
    return Material(job, plan, data)


class Scored(NamedTuple):
    """A batch, scored; higher is more abnormal."""

    scores: Tensor  # (B,)
    maps: Tensor  # (B, h, w), of any size


Scorer = Callable[[Tensor], Scored]  # images (B, C, H, W) in [0, 1] at the working size
HeldOut = Iterable[tuple[Scorer, Indices]]  # a fitted row, and training images that it was not fitted to


@dataclass(slots=True)
class Figures:
    """Collects scores and maps of a labelled folder, and gives the figures that `evaluate` gives."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    pixels: PixelFigures = field(default_factory=PixelFigures)
    masks: Masks = field(init=False)

    def __post_init__(self) -> None:
        """List the masks."""
        self.masks = Masks(self.folder)

    def add(self, relative: str, score: float, anomaly_map: NDArray[np.float32]) -> None:
        """Take in one image: its path under `test`, its score and its map at its own size."""
        self.rows.append({"path": relative, "score": score})
        defect = relative.split("/", 1)[0]
        mask = self.masks.of(relative, anomaly_map.shape)
        self.pixels.add(anomaly_map, mask, defect=None if defect == GOOD else defect)

    @property
    def scores(self) -> dict[str, float]:
        """Score of each image, by its path under `test`."""
        return {row["path"]: row["score"] for row in self.rows}

    def result(self, calibration: Calibration | None = None) -> Answer:
        """The figures so far, with verdicts where there is a calibration."""
        return measure_scores(self.rows, self.pixels, Verdicts.of(calibration, None)) | {"masks": self.masks.report()}


class Labelled(NamedTuple):
    """An image to score; its label is the first part of its path."""

    relative: str
    size: tuple[int, int]  # height and width of the file
    unit: Tensor  # (1, C, h, w), in [0, 1] at the working size


def read_images(files: Sequence[ImageFile], material: Material) -> Iterator[Labelled]:
    """Decode images as the model's format says, at the working size; what cannot be read is left out."""
    for image in decode_for(files, material.plan.image_format):
        if isinstance(image, Failed):
            log.warning("left out %s: %s", image.file.relative, image.reason)
            continue
        yield Labelled(image.file.relative, (image.height, image.width), _unit(image, material))


def _unit(image: Decoded, material: Material) -> Tensor:
    return resize(material.plan.image_format.to_unit(torch.from_numpy(image.pixels[None])), material.plan.size)


def at_full_size(anomaly_map: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map (h, w) at the size of its file, as the exported graph resizes its own."""
    whole: NDArray[np.float32] = resize(anomaly_map[None, None].float().cpu(), size)[0, 0].numpy()
    return whole


@torch.inference_mode()
def score_images(folder: Path, material: Material, scorer: Scorer, device: str, held_out: HeldOut) -> Answer:
    """Score the test images, and take the time of decoding, scoring and drawing the maps; then those that calibrate.

    Args:
        folder: Data set whose test images are scored.
        material: The job and its images.
        scorer: The fitted row.
        device: That it runs on.
        held_out: What scores the images that calibrate.

    Returns:
        The figures, images per second, and the scores of both.
    """
    figures, files = Figures(folder), find_images(folder / "test")
    batches = _batches(read_images(files, material), device)
    seconds, start = 0.0, time.perf_counter()
    with progress(log, "score", len(files), "images") as advance:
        for batch in batches:
            scored = scorer(_stack(batch, device))
            scores = scored.scores.cpu().tolist()
            maps = [at_full_size(each, image.size) for each, image in zip(scored.maps, batch, strict=True)]
            seconds += time.perf_counter() - start
            for image, score, each in zip(batch, scores, maps, strict=True):
                figures.add(image.relative, score, each)
            advance(len(batch))
            start = time.perf_counter()
    peak = peak_memory()  # of training and scoring: the figures below are no part of the method
    calibration = [
        score
        for other, indices in held_out
        for batch in _batches(read_images([material.data.files[index] for index in indices], material), device)
        for score in other(_stack(batch, device)).scores.cpu().tolist()
    ]
    return {
        "figures": figures.result(calibrate(material, calibration)),
        "images_per_second": len(figures.rows) / seconds,
        "peak_mib": peak,
        "scores": figures.scores,
        "calibration": calibration,
    }


def _batches(images: Iterator[Labelled], device: str) -> Iterator[list[Labelled]]:
    return iter(lambda: list(islice(images, BATCH[device])), [])


def _stack(batch: Sequence[Labelled], device: str) -> Tensor:
    return torch.cat([image.unit for image in batch]).to(device)


def calibrate(material: Material, scores: Sequence[float]) -> Calibration:
    """Calibrate a row as the software calibrates its own model, from scores of good images it was not fitted to."""
    asked = material.job.calibrate.false_alarms
    return Calibration(model_sha256="", scores=tuple(scores), map_quantiles={}, false_alarms=asked)
