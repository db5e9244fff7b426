"""What a training on crops works with: its images, its budget, and the key of its work."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base.files import write_json
from pipelines.base.software import software_version
from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.data.known_images import check_leakage
from pipelines.data.pieces import announce_pieces, warn_of_crossing
from pipelines.data.splits import FEWEST_IMAGES, FEWEST_SELECT, SplitName, split_by_content
from pipelines.data.training_images import drawn
from pipelines.errors import DataError
from pipelines.image_to_image.fit import CropRecipe, FitCrops, estimate_steps
from pipelines.images import find_images
from pipelines.images.label_images import LabelFolder
from pipelines.jobfile.job import Job
from pipelines.jobfile.piece_names import pieces_of
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)

MOST_IMAGES = 20_000  # of a folder, where the job says nothing: all of their pixels are kept on disk
FEW_CALIBRATE = 10
MOST_COMPARED, COMPARED_SIDE = 1_000, 64  # images that are trained on, and pixels of theirs, in the look for twins
TUNING = 0.3  # of the learning rate, where training begins with the weights of another model
MINUTES = 30.0  # where the job names no budget

Split = dict[SplitName, tuple[int, ...]]


def read_images(
    job: Job,
    image_format: ImageFormat,
    calibrated: str,
    labels: LabelFolder | None = None,
    *,
    short_side: int | None = None,
) -> tuple[CropImages, Split]:
    """The images of a job, none of them a test image, and what each is for.

    Args:
        job: The job.
        image_format: Channels and depth that all are brought to.
        calibrated: What rests on the calibrate split, in words.
        labels: Where the label of each pixel is.
        short_side: Pixels that the shorter side of every image is brought to.

    Raises:
        DataError: There are too few, none can be read, or some are test images.
    """
    files = find_images(job.data.images)
    if labels is not None:
        labels.warn_of_unused(files)
    positions = drawn(files, job.data.max_images or MOST_IMAGES)
    images = load_crop_images([files[position] for position in positions], image_format, labels, short_side=short_side)
    check_leakage(images)
    names, pieces = [file.relative for file in images.files], find_pieces(job, images)
    split = split_by_content(images.pixel_sha256, job.calibrate.fraction, pieces)
    _announce(images, split, calibrated)
    if job.data.group is not None:
        announce_pieces(pieces, split["calibrate"], split["train"], job.data.group)
    held = [*split["calibrate"], *split["select"]]
    warn_of_crossing(_small(images), names, held, split["train"], group=job.data.group, most=MOST_COMPARED)
    return images, split


def read_unpaired(job: Job, image_format: ImageFormat, calibrated: str) -> tuple[CropImages, Split]:
    """Clean and damaged images of a job that pairs none of them, none a test image, and what each is for.

    Returns:
        The images; the splits of `read_images` are of clean ones alone, "degraded" and "degraded_select" (held out, to
        be looked at) are of damaged ones.

    Raises:
        DataError: There are too few of either, none can be read, or some are test images.
    """
    files = []
    for folder in job.data.folders:
        found = find_images(folder)
        files += [found[position] for position in drawn(found, job.data.max_images or MOST_IMAGES)]
        damaged = {file.path for file in found}  # of the last folder
    images = load_crop_images(files, image_format)
    check_leakage(images)
    kinds: tuple[list[int], list[int]] = ([], [])
    for index, file in enumerate(images.files):
        kinds[file.path in damaged].append(index)
    clean, degraded = kinds
    if len(degraded) < FEWEST_IMAGES:
        raise DataError(
            f"there are {len(degraded)} different readable images under {job.data.degraded} that are not among the "
            f"clean ones; training needs at least {FEWEST_IMAGES}"
        )
    of_clean = split_by_content([images.pixel_sha256[index] for index in clean], job.calibrate.fraction)
    split: Split = {name: tuple(clean[position] for position in positions) for name, positions in of_clean.items()}
    degraded.sort(key=lambda index: images.pixel_sha256[index])
    held = max(FEWEST_SELECT, len(degraded) // 10)
    split |= {"degraded": tuple(sorted(degraded[held:])), "degraded_select": tuple(sorted(degraded[:held]))}
    _announce(images, split, calibrated)
    log.info(
        "of these, %d damaged images: %d to learn the damage from, %d to look at",
        len(degraded),
        len(degraded) - held,
        held,
    )
    return images, split


def find_pieces(job: Job, images: CropImages) -> list[str]:
    """Find what each image shows; empty where the job does not say which images show one piece."""
    return [] if job.data.group is None else pieces_of([file.relative for file in images.files], job.data.group)


def _small(images: CropImages) -> Callable[[int], NDArray[Any]]:
    """From the index of an image to the colours of some of its pixels."""

    def small(index: int) -> NDArray[Any]:
        image = images.image(index)[..., : images.image_format.channels]
        step = max(1, min(image.shape[:2]) // COMPARED_SIDE)
        return np.asarray(image[::step, ::step])

    return small


def _announce(images: CropImages, split: Split, calibrated: str) -> None:
    """Say what is trained on, and warn where little is kept for what rests on the calibrate split.

    Raises:
        DataError: Nothing is kept for it.
    """
    form, pixels = images.image_format, sum(height * width for height, width in images.sizes)
    log.info(
        "%d %d-bit %s images, %.1f megapixels: %d to train, %d to select, %d to calibrate",
        len(images), form.bit_depth, "grey" if form.channels == 1 else "colour", pixels / 1e6,
        len(split["train"]), len(split["select"]), len(split["calibrate"]),
    )  # fmt: skip
    if not split["calibrate"]:
        raise DataError(f"no image is left for {calibrated}: raise 'calibrate.fraction', or leave it out")
    if len(split["calibrate"]) < FEW_CALIBRATE:
        log.warning("%s rest on %d images: they are only a hint; add images", calibrated, len(split["calibrate"]))


def digest_images(images: CropImages) -> str:
    """Return one digest of all images that a model was made from."""
    return hashlib.sha256("".join(sorted(images.pixel_sha256)).encode()).hexdigest()


def choose_recipe(job: Job, size: str, device: str, scale: int = 1) -> CropRecipe:
    """What the job leaves open; the steps are a guess where it asks for minutes."""
    table, large = job.train, device == "cuda"
    step = scale * 16  # a multiple of the largest stride
    crop = table.crop or max(128 if large else 96, 48 * scale)
    return CropRecipe(
        steps=table.steps or 1,
        batch=table.batch or (32 if large else 8),
        crop=max(step, crop // step * step),
        learning_rate=table.learning_rate or (1e-3 if size == "S" else 5e-4) * (TUNING if table.start else 1),
        seed=table.seed,
    )


def count_steps(job: Job, module: FitCrops[Any], work: Path, device: str) -> int:
    """Count the steps that the job's minutes allow here, once for each run."""
    minutes = job.train.minutes or MINUTES
    noted = work / "steps.json"
    if noted.is_file():
        steps = int(json.loads(noted.read_text(encoding="utf-8"))["steps"])
    else:
        steps = estimate_steps(60 * minutes, module, device)
        write_json(noted, {"steps": steps})
    log.info("about %g minutes take %d steps here (train.minutes)", minutes, steps)
    return steps


def digest_work(job: Job, images: CropImages, split: Split, recipe: CropRecipe, plan: Sequence[Any]) -> str:
    """Return the digest of everything that the weights depend on: a checkpoint of other work is never resumed."""
    stamp = {
        "task": job.task,
        "plan": plan,
        "train": job.train.model_dump(mode="json"),
        "recipe": asdict(recipe),  # a device has its own
        "images": images.pixel_sha256,
        "split": [split[name] for name in sorted(split)],  # weights that have seen an image do not calibrate on it
        "format": [images.image_format.channels, images.image_format.bit_depth],
        "kintsugi": software_version(),
    }
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
