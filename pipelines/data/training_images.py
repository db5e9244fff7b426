"""Training data: a folder becomes one array on disk at the working size, and three splits by content."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base.files import write_json
from pipelines.base.progress import progress
from pipelines.data.cache import cache_folder
from pipelines.data.classes import check_classes, classes_of
from pipelines.data.plan import Plan
from pipelines.data.splits import SplitName, crosses, split_by_content
from pipelines.errors import DataError
from pipelines.images import Failed, ImageFile, find_images
from pipelines.jobfile.job import Job
from pipelines.jobfile.piece_names import pieces_of
from pipelines.models.inputs import decode_for, pixel_type, some_readable, warn_left_out
from vaecore.representations.image_format import resize

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Every distinct readable image of the folder at the working size, and who belongs to which split."""

    files: tuple[ImageFile, ...]
    sha256: tuple[str, ...]
    pixels: NDArray[Any]  # (N, h, w, C), uint8 or uint16; a memory map
    split: dict[SplitName, tuple[int, ...]]
    digest: str  # of all contents: changes when an image is added, removed or changed
    failed: tuple[Failed, ...]
    folder: Path  # where the memory map is, and what is derived from it
    classes: tuple[str, ...] = ()  # names, where each sub-folder is one, and
    labels: tuple[int, ...] = ()  # which of them each image is of
    pieces: tuple[str, ...] = ()  # what each image shows, where the job says which show one piece

    def files_of(self, name: SplitName) -> list[ImageFile]:
        """The files of one split."""
        return [self.files[index] for index in self.split[name]]


def load_training_data(job: Job, plan: Plan) -> TrainingData:
    """Decode the folder once, at the working size, into a memory map under KINTSUGI_HOME; later runs reuse it.

    Files that failed are tried again: where one can be read now, all are decoded anew.

    Raises:
        DataError: Too few images; the message says how many are needed.
    """
    files = find_images(job.data.images)
    most = job.data.max_images or plan.target.most_images
    stamp = {
        "folder": str(job.data.images),
        "files": [(file.relative, file.size, file.mtime_ns) for file in files],
        "plan": [plan.image_format.bit_depth, plan.image_format.channels, plan.size, most],
    }
    with cache_folder(stamp) as folder:  # trainings over one folder start together: one of them decodes
        index_path, pixels_path = folder / "index.json", folder / "pixels.npy"
        if not index_path.is_file() or some_readable(_failed_of(index_path, files), plan.image_format):
            _decode_into(files, plan, most, pixels_path, index_path)
        index = json.loads(index_path.read_text())
        pixels = np.load(pixels_path, mmap_mode="r")[: len(index["keep"])]
    kept = [files[position] for position in index["keep"]]
    failed = tuple(Failed(files[position], reason, None) for position, reason in index["failed"])
    warn_left_out(log, ((item.file.relative, item.reason) for item in failed))
    if index["duplicates"]:
        log.warning("left out %d images that are byte for byte the same as another", index["duplicates"])
    pieces = () if job.data.group is None else tuple(pieces_of([file.relative for file in kept], job.data.group))
    cross = plan.experts is not None and crosses(job, len(index["sha256"]))
    split = split_by_content(index["sha256"], job.calibrate.fraction, pieces, cross=cross)
    digest = hashlib.sha256("".join(sorted(index["sha256"])).encode()).hexdigest()
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    if job.model.classes is not None:
        classes, labels = classes_of(kept, job.data.images)
        check_classes(classes, (labels[position] for position in split["train"]))
    return TrainingData(
        tuple(kept), tuple(index["sha256"]), pixels, split, digest, failed, folder, classes, labels, pieces
    )


def _failed_of(index_path: Path, files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the files that an earlier run could not read: an error of the disk or of a share is no fact of a file."""
    return [files[position] for position, _ in json.loads(index_path.read_text())["failed"]]


def _decode_into(files: list[ImageFile], plan: Plan, most: int, pixels_path: Path, index_path: Path) -> None:
    positions = drawn(files, most)
    height, width = plan.size
    for leftover in pixels_path.parent.glob("*.tmp.npy"):  # of a process that was killed here
        leftover.unlink()
    temporary = pixels_path.with_suffix(f".{os.getpid()}.tmp.npy")
    shape = (len(positions), height, width, plan.image_format.channels)
    require_space(
        temporary.parent, math.prod(shape) * np.dtype(pixel_type(plan.image_format)).itemsize, "decoded images"
    )
    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=pixel_type(plan.image_format), shape=shape)
    keep: list[int] = []
    digests: dict[str, None] = {}
    failed: list[tuple[int, str]] = []
    duplicates = 0
    images = decode_for([files[position] for position in positions], plan.image_format)
    with progress(log, "read", len(positions), "images") as advance:
        for position, image in zip(positions, images, strict=True):
            advance()
            if isinstance(image, Failed):
                failed.append((position, image.reason))
            elif image.sha256 in digests:
                duplicates += 1
            else:
                y = plan.image_format.to_unit(torch.from_numpy(image.pixels[None]))
                array[len(keep)] = plan.image_format.from_unit(resize(y, plan.size))[0].numpy()
                keep.append(position)
                digests[image.sha256] = None
    array.flush()
    index_path.unlink(missing_ok=True)  # of other pixels, should this process be killed before it writes the new one
    temporary.replace(pixels_path)
    write_json(index_path, {"keep": keep, "sha256": list(digests), "failed": failed, "duplicates": duplicates})


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin a file that the disk cannot hold: a memory map on a full disk ends the process without a word.

    Raises:
        DataError: Too little is free; the message says how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        msg = (
            f"{what} take {needed / 1e9:.1f} GB under {folder}, and {free / 1e9:.1f} GB are free there: make room, "
            "move KINTSUGI_HOME, lower KINTSUGI_CACHE_GB (caches of past trainings), or set 'data.max_images'"
        )
        raise DataError(msg)


def drawn(files: Sequence[ImageFile], most: int) -> list[int]:
    """Positions of the files that are used: all, or as many as are wanted, drawn by the hash of their names."""
    if len(files) <= most:
        return list(range(len(files)))
    log.warning("using %d of %d images (data.max_images)", most, len(files))
    by_hash = sorted(range(len(files)), key=lambda position: hashlib.sha256(files[position].relative.encode()).digest())
    return sorted(by_hash[:most])
