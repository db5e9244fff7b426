"""What the training loop is fed: y of any image of the folder, made when it is asked for.

Features of every image are computed once and kept beside the decoded pixels: training sees each many times.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.base.locks import locked
from pipelines.base.progress import progress
from pipelines.base.subsample import evenly_spaced
from pipelines.data.extractor import Extractor, find_extractor
from pipelines.data.image_changes import BLUR, COLOUR, EXPOSURE, NOISE, SHIFT, vary
from pipelines.data.splits import SplitName
from pipelines.data.training_images import TrainingData, require_space
from pipelines.models.session import keyed_generator
from vaecore.representations import Features, Representation
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)
STATISTICS_BATCH, STATISTICS_IMAGES = 64, 2048


class Changes(NamedTuple):
    """Normal changes of images that have been resized."""

    names: Sequence[str]
    scale: float  # working size, as a share of that of the files


class Examples:
    """Images of a folder as y."""

    def __init__(
        self,
        array: NDArray[Any],
        extracted: Callable[[Tensor], Tensor],
        split: dict[SplitName, tuple[int, ...]],
        size: tuple[int, int],
        representation: Representation | None = None,
        labels: Sequence[int] = (),
    ) -> None:
        """Keep an array with one row an image, and the way from rows to y.

        Args:
            array: Pixels (N, h, w, C), or features (N, C, h, w).
            extracted: From some of its rows to what y is made of.
            split: Who belongs to which split.
            size: Height and width of y.
            representation: Makes y of what is extracted; default: that is y.
            labels: Class of each image, where they have one.
        """
        self._array, self._extracted, self.split, self.size = array, extracted, split, size
        self._representation = representation
        self._labels = torch.tensor(labels) if labels else torch.zeros(len(array), dtype=torch.int64)

    def labels_of(self, indices: Sequence[int] | NDArray[Any]) -> Tensor:
        """Classes of some images, (B,), in ascending order of their indices as in `batch`; 0 where they have none."""
        return self._labels[np.sort(np.asarray(indices))]

    def batch(
        self,
        indices: Sequence[int] | NDArray[Any],
        chance: torch.Generator | None = None,
    ) -> Tensor:
        """y of some images, (B, C, h, w), in ascending order of their indices.

        Args:
            indices: Of the images.
            chance: Makes y as training is given it (`Representation.drawn`); default: as scoring makes it.
        """
        order = np.sort(np.asarray(indices))
        rows = self._array[order]
        with torch.no_grad():
            extracted = self._extracted(torch.from_numpy(rows))
            if self._representation is None:
                return extracted
            made = self._representation
            return made.normalise(extracted) if chance is None else made.sample_y(extracted, chance)

    def extracted(self, indices: Sequence[int] | NDArray[Any]) -> Tensor:
        """What y of some images is made of, in ascending order of their indices."""
        with torch.no_grad():
            return self._extracted(torch.from_numpy(self._array[np.sort(np.asarray(indices))]))

    def batches(self, name: SplitName, size: int, most: int | None = None) -> Iterator[Tensor]:
        """All of a split, or `most` images spread over it, a batch at a time: the folder may not fit into memory."""
        all_of_it = self.split[name]
        indices = np.array(all_of_it if most is None else evenly_spaced(all_of_it, most))
        for part in np.array_split(indices, -(-len(indices) // size)):
            yield self.batch(part)


def make_examples(
    data: TrainingData, image_format: ImageFormat, representation: Representation, changes: Changes | None = None
) -> Examples:
    """Prepare a folder for training; features are extracted, kept and standardised on the way.

    The examples of a model of windows are windows, some of each image (`TrainingData.shown`). With changes, a changed
    copy of every example comes after all of them, in the same order; it is in no split.

    Args:
        data: Decoded images and splits.
        image_format: Of the images.
        representation: What y is; the statistics of features are set from the train split.
        changes: Normal changes, of features alone; None: none.
    """
    if not isinstance(representation, Features):
        return Examples(
            data.pixels,
            lambda rows: representation.extract(image_format.to_unit(rows)),
            data.split,
            representation.size,
            representation,
            data.labels,
        )
    array = _extracted(data, image_format, representation, changes)
    split = {name: data.rows_of(name) for name in data.split}
    raw = Examples(array, lambda rows: rows.float(), split, representation.size)
    representation.standardise(raw.batches("train", STATISTICS_BATCH, STATISTICS_IMAGES))
    return Examples(array, lambda rows: rows.float(), split, representation.size, representation, data.labels)


def _extracted(
    data: TrainingData, image_format: ImageFormat, representation: Features, changes: Changes | None
) -> NDArray[np.float16]:
    # The contents in their order, too: a file that could not be read before moves all that come after it.
    form: list[Any] = [representation.input_size, representation.standardises]
    form += ["whole"] * representation.whole
    if changes is not None:
        form += [*sorted(changes.names), round(changes.scale, 3), EXPOSURE, BLUR, NOISE, SHIFT, COLOUR]
    stamp = f"{representation.backbone.digest()} {form} {' '.join(data.sha256)}"
    path = data.folder / f"features-{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.npy"
    with locked(data.folder / "lock"):
        if not path.is_file():
            _extract_into(path, data, image_format, representation, changes)
        array: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return array


def _extract_into(
    path: Path, data: TrainingData, image_format: ImageFormat, representation: Features, changes: Changes | None
) -> None:
    count = len(data.shown) * (2 if changes else 1)
    shape = (count, representation.extracted_channels, *representation.extracted_size)
    for leftover in path.parent.glob("features-*.tmp.npy"):  # of a process that was killed here
        leftover.unlink()
    temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
    require_space(path.parent, 2 * math.prod(shape), "features")
    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
    extractor = Extractor(find_extractor(representation, image_format))
    with progress(log, "features", count, "images" if data.windows is None else "windows") as advance:
        done = 0
        for features in extractor.batches(_with_changed(data, changes)):
            array[done : done + len(features)] = features
            done += len(features)
            advance(len(features))
    array.flush()
    temporary.replace(path)


def _with_changed(data: TrainingData, changes: Changes | None) -> Iterator[NDArray[Any]]:
    """Every example, and then, with changes, a changed copy of each."""
    yield from data.shown
    if changes:
        for owner, pixels in zip(data.image_of.tolist(), data.shown, strict=True):
            yield vary(np.asarray(pixels), changes.names, keyed_generator(data.sha256[owner]), changes.scale)
