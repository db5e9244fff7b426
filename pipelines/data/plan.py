"""What is chosen from the folder of good images when the job file leaves it open: format, target, size, halvings."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipelines.base.subsample import evenly_spaced
from pipelines.errors import DataError, JobError
from pipelines.images import Failed, list_images
from pipelines.images.bits import ALL, narrowest
from pipelines.images.windows import Windows
from pipelines.jobfile.job import Job
from pipelines.models.inputs import decode_for
from vaecore.representations.backbones import Maps, choose_maps
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import Target, Task

log = logging.getLogger(__name__)
SURVEY_FILES = 200  # enough to know channels, depth and sizes of a folder
TINY = 48
"""Pixels along the longer side below which images are pictures of one thing, with no places to tell apart."""
OF_DEEP = frozenset(
    {"likelihood", "latent", "latent_channels", "width", "stages", "blocks", "dropout", "levels", "prior"}
    | {"components", "classes", "samples"}
)
"""Options of the model table that a linear VAE has not; as is all of the train table but the seed."""
MOST_PATCHES = 32  # along an image's longer side, of a vision transformer: its time grows with their fourth power
WINDOW = 256  # pixels of full resolution along each side of a window, where the job says nothing
OVERLAP = 0.25  # share of a window's shorter side that it has in common with the next
SHRUNK, HALVED = 4.0, 2.0
"""Reduction of the longer side from which images are cut into windows, since a defect of ten pixels would shrink to two
or three; and from which the plan warns of what resizing loses."""
LATENT_GRID = 4  # cells along the shorter side of the latent grid, about: what cannot copy a small defect


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices, made."""

    image_format: ImageFormat
    target_name: str
    target: Target
    size: tuple[int, int]  # height and width that images are resized to, or of a window
    stages: int
    strides: tuple[int, ...]  # of the backbone; (1,) where y is the image itself
    experts: tuple[str, ...] | None = None  # beside a linear VAE; None: the VAE is a deep one
    median_size: tuple[int, int] | None = None  # height and width of the images that are trained on
    overlap: int | None = None  # pixels that windows of full resolution overlap by; None: images are resized
    reasons: tuple[str, ...] = ()  # in words, for people
    layers: tuple[int, ...] | None = None  # of a vision transformer, one for each stride

    @property
    def maps(self) -> Maps:
        """Where the backbone's maps are taken."""
        return Maps(self.strides, self.layers)

    @property
    def windows(self) -> int | None:
        """How many windows an image of the median size has; None where images are resized."""
        if self.overlap is None:
            return None
        return len(Windows.over(self.median_size or self.size, self.size, self.overlap).places)


@dataclass(frozen=True, slots=True)
class Survey:
    """What some images of a folder look like."""

    image_format: ImageFormat
    height: float  # median
    width: float
    bits: int = ALL  # that the 16-bit ones among them fill


def survey(job: Job) -> Survey:
    """Look at some images of the training folder.

    Raises:
        DataError: None of them can be read.
    """
    folders = job.data.folders
    some = [
        file for folder in folders for file in evenly_spaced(list_images(folder).files, SURVEY_FILES // len(folders))
    ]
    sizes: list[tuple[int, int]] = []
    grey = deep = 0
    largest: list[int] = []  # values of 16-bit files
    reasons: Counter[str] = Counter()
    for image in decode_for(some, ImageFormat(channels=3, bit_depth=16)):
        if isinstance(image, Failed):
            reasons[image.reason] += 1
            continue
        sizes.append((image.height, image.width))
        grey += bool(
            (image.pixels[..., 0] == image.pixels[..., 1]).all()
            and (image.pixels[..., 1] == image.pixels[..., 2]).all()
        )
        deep += image.bit_depth > 8  # files of 9 to 15 bits are decoded to 16
        if image.bit_depth == ALL:
            largest.append(int(image.pixels.max()))
    if not sizes:
        reason, _ = reasons.most_common(1)[0]
        msg = f"none of the {len(some)} images looked at under {job.data.images} can be read; most often: {reason}"
        raise DataError(msg)
    image_format = ImageFormat(channels=1 if grey == len(sizes) else 3, bit_depth=16 if 2 * deep > len(sizes) else 8)
    height, width = (float(side) for side in np.median(np.array(sizes), axis=0))
    return Survey(image_format, height, width, narrowest(max(largest)) if largest else ALL)


def warn_of_dark(found: Survey) -> None:
    """Warn where images are read as nearly black, because scores take values as they are, in training and in use."""
    if found.bits < ALL:
        log.warning(
            "the 16-bit images have values below %d of 65535, as cameras of %d bits write them: they look "
            "nearly black. Multiply them by %d (in training and in use), unless they are meant to be so dark",
            1 << found.bits, found.bits, 1 << (ALL - found.bits),
        )  # fmt: skip


def make_plan(job: Job, task: Task, found: Survey) -> Plan:
    """Choose what the job leaves open.

    Args:
        job: The job.
        task: Its task.
        found: What its images look like.

    Raises:
        JobError: The task knows no such target, or the backbone is unknown or has no such maps.
    """
    name = job.model.target or _usual_target(job, task, found)
    if name not in task.targets:
        msg = f"{job.path}: 'model.target' is '{name}'; the task {job.task} knows {', '.join(task.targets)}"
        raise JobError(msg)
    target = task.targets[name]
    sides = (found.height, found.width)
    experts = choose_experts(job, target)
    overlap: int | None = None
    if target.features:
        usual = target.deep_strides if experts is None else target.strides
        with backbone_fits(job):
            maps = choose_maps(
                job.model.backbone, usual, strides=job.model.strides, layers=job.model.layers, whole=target.whole
            )
        asked = 0 if target.whole or experts is not None else job.model.stages
        if maps.layers is not None:
            least, most = (min(side, MOST_PATCHES * maps.strides[0]) for side in target.longest)
            target = replace(target, longest=(least, most))
        size, stages = features_size(*sides, job.model.size, asked, max(maps.strides), target.longest)
        if experts is not None and wants_windows(job, sides, target):
            size = window_size(*sides, job.model.size, max(maps.strides))
            overlap = round(OVERLAP * min(size))
    else:
        maps = Maps((1,))
        size, stages = working_size(*sides, job.model.size, job.model.stages, target.longest)
    reasons: tuple[str, ...] = (
        f"working on {target.summary} {'at' if overlap is None else 'of windows of'} {size[0]} x {size[1]} "
        f"(the images' median: {sides[0]:.0f} x {sides[1]:.0f}), "
        + ("a linear VAE in closed form" if experts is not None else f"{stages} halvings"),
        *_window_reasons(job, sides, target, experts, overlap),
    )
    if target.whole:
        reasons += ("scores are of what images show as a whole: there are no heat maps",)
    median_size = (round(found.height), round(found.width))
    return Plan(
        found.image_format,
        name,
        target,
        size,
        stages,
        maps.strides,
        experts,
        median_size,
        overlap,
        reasons,
        maps.layers,
    )


@contextmanager
def backbone_fits(job: Job) -> Iterator[None]:
    """Turn what a backbone refuses into the job's error."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise JobError(f"{job.path}: 'model.backbone' {job.model.backbone}: {error}") from None


def wants_windows(job: Job, sides: tuple[float, float], target: Target) -> bool:
    """Return whether images are looked at in windows: asked for, or resizing would shrink them to a quarter."""
    if job.model.windows is not None:
        return job.model.windows
    return job.model.size is None and max(sides) >= SHRUNK * target.longest[1]


def window_size(height: float, width: float, wanted: int | tuple[int, int] | None, stride: int) -> tuple[int, int]:
    """Choose the size of windows, a multiple of the coarsest stride: no larger than the images along either side.

    >>> (
    ...     window_size(3000, 4000, None, 16),
    ...     window_size(160, 1300, None, 16),
    ...     window_size(3000, 4000, 512, 16),
    ... )
    ((256, 256), (160, 256), (512, 512))
    """
    asked = wanted if isinstance(wanted, tuple) else (wanted or WINDOW,) * 2
    rows, columns = (
        max(stride, stride * int(min(most, side) // stride)) for most, side in zip(asked, (height, width), strict=True)
    )
    return rows, columns


def _window_reasons(
    job: Job, sides: tuple[float, float], target: Target, experts: tuple[str, ...] | None, overlap: int | None
) -> tuple[str, ...]:
    """In words, why images are looked at in windows, or why large ones are not."""
    if overlap is not None:
        why = "asked for" if job.model.windows else f"resized to {target.longest[1]} they would be shrunk to a quarter"
        return (
            f"images are looked at in windows at full resolution ({why}), {overlap} pixels or more of each shared with "
            "the next; the score is the highest window's ('model.windows' = false resizes them)",
        )
    if max(sides) >= HALVED * target.longest[1] and target.experts is not None:
        how = "'model.windows' = true looks at them at full resolution"
        how = how if experts is not None else "windows at full resolution are of the linear VAE"
        return (f"images are shrunk to {target.longest[1] / max(sides):.0%}, small defects vanish: {how}",)
    return ()


def deep_options(job: Job) -> list[str]:
    """The options that the job sets and that only a deep VAE has."""
    of_model = [key for key in job.set_options("model") if key.removeprefix("model.") in OF_DEEP]
    of_train = [key for key in job.set_options("train") if key != "train.seed"]
    return [*of_model, *of_train, *["model.score"] * (job.model.score in ("ratio", "iwae", "complexity"))]


def choose_experts(job: Job, target: Target) -> tuple[str, ...] | None:
    """The experts beside a linear VAE; None where the VAE is a deep one, asked for or by an option that only it has."""
    if target.experts is None or job.model.vae == "deep":
        return None
    if job.model.vae is None and job.model.experts is None and deep_options(job):
        return None
    return target.experts if job.model.experts is None else job.model.experts


def _usual_target(job: Job, task: Task, found: Survey) -> str:
    """The task's first target, unless the images are too small to have places and nothing else was asked for."""
    first = next(iter(task.targets))
    whole = next((name for name, target in task.targets.items() if target.whole), first)
    tiny = max(found.height, found.width) < TINY
    return whole if tiny and job.model.says_nothing_of_places else first


def working_size(
    height: float, width: float, wanted: int | tuple[int, int] | None, stages: int | None, longest: tuple[int, int]
) -> tuple[tuple[int, int], int]:
    """Choose the size that a network on pixels works at, a multiple of its stride, and its number of halvings.

    >>> working_size(324, 270, None, None, (0, 96))
    ((96, 80), 4)
    >>> working_size(28, 28, None, None, (0, 96))
    ((28, 28), 2)
    """
    target = _target(height, width, wanted, longest)
    if stages is None:
        stages = max(1, min(4, int(math.log2(max(2.0, min(target) / 4.5)))))
    return _rounded(target, 2**stages), stages


def features_size(
    height: float,
    width: float,
    wanted: int | tuple[int, int] | None,
    stages: int | None,
    stride: int,
    longest: tuple[int, int],
) -> tuple[tuple[int, int], int]:
    """Choose the size at which a backbone sees the images, and the halvings from its map to the latents.

    >>> features_size(324, 270, None, None, 16, (256, 512))
    ((320, 256), 2)
    >>> features_size(3000, 4000, None, None, 16, (256, 512))
    ((384, 512), 3)
    >>> features_size(28, 28, None, None, 16, (256, 512))
    ((256, 256), 2)
    """
    target = _target(height, width, wanted, longest)
    if stages is None:
        stages = max(1, min(4, round(math.log2(max(1.0, min(target) / stride / LATENT_GRID)))))
    return _rounded(target, stride * 2**stages), stages


def _target(
    height: float, width: float, wanted: int | tuple[int, int] | None, longest: tuple[int, int]
) -> tuple[float, float]:
    if isinstance(wanted, tuple):
        return float(wanted[0]), float(wanted[1])
    least, most = longest
    scale = (wanted or min(most, max(least, height, width))) / max(height, width)
    return height * scale, width * scale


def _rounded(target: tuple[float, float], multiple: int) -> tuple[int, int]:
    height, width = (max(multiple, multiple * round(side / multiple)) for side in target)
    return height, width
