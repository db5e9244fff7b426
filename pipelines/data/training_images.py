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
from pipelines.data.splits import SplitName, choose_scale, crosses, split_by_content
from pipelines.errors import DataError
from pipelines.images import Decoded, Failed, ImageFile, find_images
from pipelines.images.windows import Windows
from pipelines.jobfile.job import Job
from pipelines.jobfile.piece_names import pieces_of
from pipelines.models.inputs import decode_for, pixel_type, some_readable, warn_left_out
from pipelines.models.session import keyed_generator
from vaecore.representations.image_format import resize

log = logging.getLogger(__name__)
WINDOWS = 1_000  # of all images together that a model of windows is fitted to; one of each image at least


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Every distinct readable image of the folder at the working size, and who belongs to which split."""

    files: tuple[ImageFile, ...]
    sha256: tuple[str, ...]
    pixels: NDArray[Any]  # (N, h, w, C), uint8 or uint16; a memory map; whole images
    split: dict[SplitName, tuple[int, ...]]
    digest: str  # of all contents: changes when an image is added, removed or changed
    failed: tuple[Failed, ...]
    folder: Path  # where the memory map is, and what is derived from it
    classes: tuple[str, ...] = ()  # names, where each sub-folder is one, and
    labels: tuple[int, ...] = ()  # which of them each image is of
    pieces: tuple[str, ...] = ()  # what each image shows, where the job says which show one piece
    windows: NDArray[Any] | None = None  # (M, h, w, C), at full resolution, of a model of windows: some of each image
    owners: tuple[int, ...] = ()  # which image each window is of, and
    numbers: tuple[int, ...] = ()  # which of its windows, counted row by row
    taught: tuple[int, ...] = ()  # images from elsewhere that people called good: they train, and do nothing else
    left_out: tuple[int, ...] = ()  # images that people called bad: they are in no split

    def files_of(self, name: SplitName) -> list[ImageFile]:
        """The files of one split."""
        return [self.files[index] for index in self.split[name]]

    @property
    def shown(self) -> NDArray[Any]:
        """What y is made of, (M, h, w, C): windows, or whole images."""
        return self.pixels if self.windows is None else self.windows

    @property
    def image_of(self) -> NDArray[np.int64]:
        """Which image each row of `shown` is of."""
        return np.arange(len(self.files)) if self.windows is None else np.array(self.owners)

    def rows_of(self, name: SplitName) -> tuple[int, ...]:
        """Rows of `shown` that are of one split."""
        if self.windows is None:
            return self.split[name]
        return tuple(np.flatnonzero(np.isin(self.owners, self.split[name])).tolist())


def load_training_data(
    job: Job, plan: Plan, taught: Sequence[ImageFile] = (), bad: frozenset[str] = frozenset()
) -> TrainingData:
    """Decode the folder once, at the working size, into a memory map under KINTSUGI_HOME; later runs reuse it.

    Files that failed are tried again: where one can be read now, all are decoded anew.

    Args:
        job: The job.
        plan: What was chosen from its images.
        taught: Images from elsewhere that train, too.
        bad: Digests of images that do not train, wherever they are.

    Raises:
        DataError: Too few images; the message says how many are needed.
    """
    own = find_images(job.data.images)
    files = [*own, *taught] if taught else own
    most = job.data.max_images or plan.target.most_images
    stamp = {
        "folder": str(job.data.images),
        "files": [(file.relative, file.size, file.mtime_ns) for file in files],
        "plan": [plan.image_format.bit_depth, plan.image_format.channels, plan.size, most],
    }
    if plan.overlap is not None:
        stamp["windows"] = [plan.overlap, WINDOWS]
    with cache_folder(stamp) as folder:  # trainings over one folder start together: one of them decodes
        index_path, pixels_path = folder / "index.json", folder / "pixels.npy"
        if not index_path.is_file() or some_readable(_failed_of(index_path, files), plan.image_format):
            _decode_into(files, plan, most, pixels_path, index_path)
        index = json.loads(index_path.read_text())
        pixels = np.load(pixels_path, mmap_mode="r")[: len(index["keep"])]
        owners, numbers = tuple(index.get("owners", ())), tuple(index.get("numbers", ()))
        windows = np.load(_windows_path(pixels_path), mmap_mode="r")[: len(owners)] if owners else None
    kept = [files[position] for position in index["keep"]]
    failed = tuple(Failed(files[position], reason, None) for position, reason in index["failed"])
    warn_left_out(log, ((item.file.relative, item.reason) for item in failed))
    if index["duplicates"]:
        log.warning("left out %d images that are byte-for-byte copies of another", index["duplicates"])
    pieces = () if job.data.group is None else tuple(pieces_of([file.relative for file in kept], job.data.group))
    elsewhere = frozenset(place for place, position in enumerate(index["keep"]) if position >= len(own))
    split = _split(job, plan, index["sha256"], pieces, elsewhere, bad)
    digest = hashlib.sha256("".join(sorted(index["sha256"])).encode()).hexdigest()
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    if job.model.classes is not None:
        classes, labels = classes_of(kept, job.data.images)
        check_classes(classes, (labels[position] for position in split["train"]))
    return TrainingData(
        tuple(kept), tuple(index["sha256"]), pixels, split, digest, failed, folder, classes, labels, pieces, windows,
        owners, numbers, tuple(sorted(elsewhere & set(split["train"]))),
        tuple(place for place, sha256 in enumerate(index["sha256"]) if sha256 in bad),
    )  # fmt: skip


def _split(
    job: Job, plan: Plan, sha256: Sequence[str], pieces: Sequence[str], elsewhere: frozenset[int], bad: frozenset[str]
) -> dict[SplitName, tuple[int, ...]]:
    """Divide the folder's own images, without bad ones; those from elsewhere train alone."""
    own = [place for place, digest in enumerate(sha256) if place not in elsewhere and digest not in bad]
    cross = plan.experts is not None and crosses(job, len(own))
    found = split_by_content(
        [sha256[place] for place in own], job.calibrate.fraction, [pieces[place] for place in own] if pieces else (),
        cross=cross,
    )  # fmt: skip
    split = {name: tuple(own[each] for each in of) for name, of in found.items()}
    more = (place for place in elsewhere if sha256[place] not in bad)
    split["train"] = tuple(sorted({*split["train"], *more}))
    if plan.experts is None:  # of models in closed form, folds have images to standardise by
        split["scale"] = choose_scale(split["select"], sha256, pieces)
    return split


def _failed_of(index_path: Path, files: Sequence[ImageFile]) -> list[ImageFile]:
    """Return the files that an earlier run could not read: an error of the disk or of a share is no fact of a file."""
    return [files[position] for position, _ in json.loads(index_path.read_text())["failed"]]


def _windows_path(pixels_path: Path) -> Path:
    return pixels_path.with_name("windows.npy")


def some_windows(image: Decoded, size: tuple[int, int], overlap: int, most: int) -> dict[int, NDArray[Any]]:
    """Some of the windows that scoring cuts an image into, by number, each (h, w, C); drawn by the image's content."""
    windows = Windows.over((image.height, image.width), size, overlap)
    order = keyed_generator(image.sha256).permutation(len(windows.places))
    chosen = set(order[:most].tolist())
    return {number: part[0] for number, part in enumerate(windows.cut(image.pixels)) if number in chosen}


def _decode_into(files: list[ImageFile], plan: Plan, most: int, pixels_path: Path, index_path: Path) -> None:
    positions = drawn(files, most)
    for leftover in pixels_path.parent.glob("*.tmp.npy"):  # of a process that was killed here
        leftover.unlink()
    each = max(1, WINDOWS // len(positions))
    paths = {pixels_path: len(positions)}
    if plan.overlap is not None:
        paths[_windows_path(pixels_path)] = each * len(positions)
    kind, shape = np.dtype(pixel_type(plan.image_format)), (*plan.size, plan.image_format.channels)
    require_space(pixels_path.parent, sum(paths.values()) * math.prod(shape) * kind.itemsize, "decoded images")
    temporary = {path: path.with_suffix(f".{os.getpid()}.tmp.npy") for path in paths}
    array, *of_windows = [
        np.lib.format.open_memmap(temporary[path], mode="w+", dtype=kind, shape=(rows, *shape))
        for path, rows in paths.items()
    ]
    owners: list[int] = []
    numbers: list[int] = []
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
                if plan.overlap is not None:
                    for number, window in some_windows(image, plan.size, plan.overlap, each).items():
                        of_windows[0][len(owners)] = window
                        owners.append(len(keep))
                        numbers.append(number)
                keep.append(position)
                digests[image.sha256] = None
    index_path.unlink(missing_ok=True)  # of other pixels, should this process be killed before it writes the new one
    for filled, (path, made) in zip((array, *of_windows), temporary.items(), strict=True):
        filled.flush()
        made.replace(path)
    index = {"keep": keep, "sha256": list(digests), "failed": failed, "duplicates": duplicates}
    write_json(index_path, index | ({} if plan.overlap is None else {"owners": owners, "numbers": numbers}))


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
