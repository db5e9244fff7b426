"""Figures of merit of a model that labels pixels, on images whose labels are known."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base.files import keep_figures
from pipelines.base.progress import progress
from pipelines.data.test_images import Tested
from pipelines.errors import DataError, FolderError, ImageError
from pipelines.evaluation.reliability import BINS, by_confidence, calibration_error
from pipelines.images import Failed, find_images
from pipelines.images.image import Samples
from pipelines.images.label_images import LabelFolder, Labels
from pipelines.images.tiles import Place
from pipelines.models.inputs import bits_for, decode_for
from pipelines.models.model_file import ModelFile
from pipelines.models.session import SegmentingSession
from pipelines.restoration.quality import compare_labels
from pipelines.restoration.restorer import Floats, in_smaller_tiles, in_tiles
from pipelines.restoration.segmenter import classes_of
from pipelines.settings import settings

log = logging.getLogger(__name__)
IMAGES, LABELS = "image", "label"  # folders under the one that is given
LEAST = 1e-12


@dataclass(slots=True)
class _Sums:
    """What is added up over the pixels of an image, or of all."""

    answers: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))  # as `by_confidence` counts
    log_likelihood: float = 0.0

    def add(self, probability: NDArray[np.float32], chosen: Labels, true: Labels) -> None:
        """Count the pixels of a part of an image: (h, w, K), (h, w) and (h, w)."""
        self.answers += by_confidence(probability.max(axis=2).ravel(), (chosen == true).ravel())
        of_true = np.take_along_axis(probability, true[..., None].astype(np.intp), axis=2)
        self.log_likelihood += float(np.log(of_true.astype(np.float64).clip(min=LEAST)).sum())

    def __iadd__(self, other: _Sums) -> _Sums:
        """Another image's, too."""
        self.answers += other.answers
        self.log_likelihood += other.log_likelihood
        return self


def evaluate_segmenter(folder: Path, file: ModelFile, *, json_path: Path | None = None) -> dict[str, Any]:
    """Label images and compare with what their labels are.

    Args:
        folder: Holds `image/` and `label/`; label images have the names of the images.
        file: A model that labels pixels.
        json_path: Where to write the figures.

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
    sums, rows, tested = _Sums(), list[dict[str, Any]](), Tested(file)
    with progress(log, "evaluate", len(files), "images") as advance:
        for image in decode_for(files, metadata, filled=True, bits=bits_for(metadata, files)):
            advance()
            try:
                if isinstance(image, Failed):
                    raise ImageError(image.reason)
                true = labels.of(image.file, image.pixels.shape[:2])
                start = time.perf_counter()
                found, chosen = _measure(session, image.pixels, true)
                seconds = time.perf_counter() - start
            except ImageError as error:
                tested.leave_out(image.file, error)
                continue
            tested.add(image)
            sums += found
            overlap = compare_labels(chosen, true, len(metadata.classes))
            rows.append({"path": image.file.relative, **overlap, "seconds": seconds})
    if not rows:
        raise DataError(f"none of {len(files)} images under {folder / IMAGES} can be measured; the reasons are above")
    labels.warn_of_unused(files)
    counts = tested.finish(folder)
    figures = {
        "task": metadata.task,
        **counts,
        **{name: float(np.mean([row[name] for row in rows])) for name in ("dice", "iou")},
        "ece": calibration_error(sums.answers),
        "nll": -sums.log_likelihood / float(sums.answers[0].sum()),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "per_image": rows,
    }
    keep_figures(json_path, figures, describe_segmentation)
    return figures


def describe_segmentation(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a terminal."""
    yield f"{figures['task']} of {figures['n_images']} images, {figures['seconds']:.2f} s for each"
    yield f"  Dice {figures['dice']:.4f}, IoU {figures['iou']:.4f} (1: equal to the true labels)"
    yield (
        f"  probabilities: off by {100 * figures['ece']:.2f} points on average (expected calibration error), "
        f"NLL {figures['nll']:.4f} nats for each pixel"
    )


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
