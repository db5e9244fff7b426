"""What the training loop is fed: y of any image of the folder, made when it is asked for.

Features of every image are computed once and kept beside the decoded pixels: training sees each many times.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data import SplitName, TrainingData
from pipelines.locks import locked
from pipelines.progress import progress
from vaecore.image_format import ImageFormat
from vaecore.representations import Features, Representation

log = logging.getLogger(__name__)
EXTRACT_BATCH = {"cpu": 8, "cuda": 128}
STATISTICS_BATCH = 64


class Examples:
    """Images of a folder as y."""

    def __init__(
        self, array: NDArray[Any], to_y: Callable[[Tensor], Tensor], split: dict[SplitName, tuple[int, ...]]
    ) -> None:
        """Keep an array with one row an image, and the way from rows to y."""
        self._array, self._to_y, self.split = array, to_y, split

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Tensor:
        """y of some images, (B, C, h, w), in ascending order of their indices."""
        with torch.no_grad():
            return self._to_y(torch.from_numpy(self._array[np.sort(np.asarray(indices))]))

    def batches(self, name: SplitName, size: int, most: int | None = None) -> Iterator[Tensor]:
        """All of a split, or `most` images spread over it, a batch at a time: the folder may not fit into memory."""
        indices = np.array(self.split[name])
        if most is not None and most < len(indices):
            indices = indices[np.linspace(0, len(indices) - 1, most).astype(int)]
        for part in np.array_split(indices, -(-len(indices) // size)):
            yield self.batch(part)


def make_examples(
    data: TrainingData, image_format: ImageFormat, representation: Representation, device: str
) -> Examples:
    """Prepare a folder for training; features are extracted, kept and standardised on the way.

    Args:
        data: Decoded images and splits.
        image_format: Of the images.
        representation: What y is; the statistics of features are set from the train split.
        device: "cpu" or "cuda", where features are extracted.
    """
    if not isinstance(representation, Features):
        return Examples(data.pixels, lambda rows: representation(image_format.to_unit(rows)), data.split)
    array = _extracted(data, image_format, representation, device)
    raw = Examples(array, lambda rows: rows.float(), data.split)
    representation.standardise(raw.batches("train", STATISTICS_BATCH))
    return Examples(array, lambda rows: representation.normalise(rows.float()), data.split)


def _extracted(
    data: TrainingData, image_format: ImageFormat, representation: Features, device: str
) -> NDArray[np.float16]:
    stamp = f"{representation.backbone.digest()} {representation.input_size} {representation.smooth}"
    path = data.folder / f"features-{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.npy"
    with locked(data.folder / "lock"):
        if not path.is_file():
            _extract_into(path, data, image_format, representation, device)
        array: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return array


def _extract_into(
    path: Path, data: TrainingData, image_format: ImageFormat, representation: Features, device: str
) -> None:
    count = len(data.files)
    shape = (count, representation.channels, *representation.size)
    for leftover in path.parent.glob("features-*.tmp.npy"):  # of a process that was killed here
        leftover.unlink()
    temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
    representation.to(device)
    try:
        with torch.inference_mode(), progress(log, "features", count, "images") as advance:
            for start in range(0, count, EXTRACT_BATCH[device]):
                rows = torch.from_numpy(np.array(data.pixels[start : start + EXTRACT_BATCH[device]]))
                y = representation.extract(image_format.to_unit(rows.to(device)))
                array[start : start + len(rows)] = y.half().cpu().numpy()
                advance(len(rows))
    finally:
        representation.cpu()
    array.flush()
    temporary.replace(path)
