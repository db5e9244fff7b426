"""Figures of merit of a model that labels pixels, on images whose labels are known."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import FolderError
from pipelines.evaluation.evaluated_images import EvaluatedImages
from pipelines.evaluation.reliability import BINS, calibration_error, count_by_confidence
from pipelines.images import Decoded, find_images
from pipelines.images.label_images import LabelFolder, Labels
from pipelines.images.samples import Samples
from pipelines.images.tiles import Place
from pipelines.models.inputs import bits_for, decode_for
from pipelines.models.model_file import ModelFile
from pipelines.models.session import SegmentingSession
from pipelines.restoration.quality import compare_labels
from pipelines.restoration.restorer import Floats, in_smaller_tiles, in_tiles
from pipelines.restoration.segmenter import classes_of
from pipelines.settings import settings

IMAGES, LABELS = "image", "label"  # folders under the one that is given
LEAST = 1e-12


@dataclass(slots=True)
class _Sums:
    """What is added up over the pixels of an image, or of all."""

    answers: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))  # as `count_by_confidence` counts
    log_likelihood: float = 0.0

    def add(self, probability: NDArray[np.float32], chosen: Labels, true: Labels) -> None:
        """Count the pixels of a part of an image: (h, w, K), (h, w) and (h, w)."""
        self.answers += count_by_confidence(probability.max(axis=2).ravel(), (chosen == true).ravel())
        of_true = np.take_along_axis(probability, true[..., None].astype(np.intp), axis=2)
        self.log_likelihood += float(np.log(of_true.astype(np.float64).clip(min=LEAST)).sum())

    def merge(self, other: _Sums) -> None:
        """Add the sums of another image."""
        self.answers += other.answers
        self.log_likelihood += other.log_likelihood


def evaluate_segmenter(folder: Path, file: ModelFile) -> dict[str, Any]:
    """Label images and compare with what their labels are.

    Args:
        folder: Holds `image/` and `label/`; label images have the names of the images.
        file: A model that labels pixels.

    Returns:
        `dice` and `iou`, means over the images of the means over the classes that are there; `ece`, the expected
        calibration error over all pixels; `nll`, nats for each pixel; `seconds`, the median for an image; `per_image`.

    Raises:
        FolderError: There is no `image/` or no `label/`.
        DataError: No image can be read, or none has a label image.
    """
    session = SegmentingSession(file, device=settings().device, threads=settings().workers)
    metadata = session.metadata
    if missing := [name for name in (IMAGES, LABELS) if not (folder / name).is_dir()]:
        msg = f"{folder} holds no folder '{missing[0]}': to measure labels, it needs {IMAGES}/ and {LABELS}/"
        raise FolderError(msg)
    files = find_images(folder / IMAGES)
    labels = LabelFolder.find(folder / LABELS, len(metadata.classes))
    sums, tested = _Sums(), EvaluatedImages(file, folder, files)

    def measure(image: Decoded) -> dict[str, Any]:
        true = labels.of(image.file, image.pixels.shape[:2])
        start = time.perf_counter()
        found, chosen = _measure(session, image.pixels, true)
        seconds = time.perf_counter() - start
        sums.merge(found)
        return {
            "path": image.file.relative,
            **compare_labels(chosen, true, len(metadata.classes)),
            "seconds": seconds,
        }

    rows = tested.measure(decode_for(files, metadata, filled=True, bits=bits_for(metadata, files)), measure)
    counts = tested.finish()
    labels.warn_of_unused(files)
    return {
        "task": metadata.task,
        **counts,
        **{name: float(np.mean([row[name] for row in rows])) for name in ("dice", "iou")},
        "ece": calibration_error(sums.answers),
        "nll": -sums.log_likelihood / float(sums.answers[0].sum()),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "per_image": rows,
    }


def _measure(session: SegmentingSession, pixels: Samples, true: Labels) -> tuple[_Sums, Labels]:
    """What the probabilities of an image are worth, and its most likely labels; memory holds a tile of the former."""

    def measured(side: int) -> tuple[_Sums, Labels]:
        found, chosen = _Sums(), np.empty_like(true)

        def keep(place: Place, outputs: tuple[Floats, ...]) -> None:
            chosen[place] = classes_of(outputs[0])
            found.add(outputs[0], chosen[place], true[place])

        in_tiles(session, pixels, keep, run=lambda tile, _: session.run(tile), side=side)
        return found, chosen

    return in_smaller_tiles(measured, pixels, None)
