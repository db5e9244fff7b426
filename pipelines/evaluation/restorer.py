"""Figures of merit of a model that mends: clean images are damaged with fixed seeds, mended, and compared.

Noise is added in float and not clipped, as in the papers; `files` are the figures where the damaged image is clipped
and rounded, as any file is. What is made of either is measured as a file would hold it. The seed is each file's sha256:
the same image gets the same noise in every folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.errors import DataError, ImageError
from pipelines.evaluation.classical import Method, choose_classical
from pipelines.evaluation.evaluated_images import EvaluatedImages
from pipelines.images import Decoded, find_images
from pipelines.models.inputs import bits_for, decode_for
from pipelines.models.model_file import LEARNED, ModelFile, RestorationMetadata
from pipelines.models.session import RestoringSession
from pipelines.restoration.channels import is_grey
from pipelines.restoration.quality import compare
from pipelines.restoration.restorer import SIDE, adapt_channels, in_tiles, to_samples
from pipelines.settings import settings
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import restorations

Floats = NDArray[np.float32]
LEAST_LEVEL = 1e-3


@dataclass(slots=True)
class Sums:
    """What is added up over images that were made one way."""

    per_image: list[dict[str, Any]] = field(default_factory=list)
    values: int = 0
    log_likelihood: float = 0.0
    squared_error: float = 0.0
    inside: dict[str, int] = field(default_factory=dict)

    def add(self, restored: Floats, spread: Floats, y: Floats, intervals: Mapping[str, float]) -> None:
        """Compare an image's errors with the scales that were predicted."""
        error = np.abs(restored - y).astype(np.float64)
        ratio = error / spread
        self.values += error.size
        self.squared_error += float(np.square(error).sum())
        self.log_likelihood -= float((0.5 * np.square(ratio) + np.log(spread) + 0.5 * np.log(2 * np.pi)).sum())
        for share, width in intervals.items():
            self.inside[share] = self.inside.get(share, 0) + int((ratio <= width).sum())

    def measure_error_bars(self) -> dict[str, Any]:
        """Return `nll`, that of the best constant scale, and for each promised share of values the share found."""
        variance = self.squared_error / self.values
        return {
            "nll": -self.log_likelihood / self.values,
            "constant_nll": float(0.5 * np.log(2 * np.pi * np.e * max(variance, 1e-12))),
            "coverage": {share: inside / self.values for share, inside in self.inside.items()},
        }

    def summarize(self) -> dict[str, Any]:
        """Return the figures of these images, and those of each."""
        return {
            "psnr": _mean(self.per_image, "psnr"),
            "ssim": _mean(self.per_image, "ssim"),
            **self.measure_error_bars(),
            "seconds": _median(self.per_image),
            "per_image": self.per_image,
        }


@dataclass(slots=True)
class _Level:
    """One strength: noise as papers have it, the same as files hold it, and what the model is compared with."""

    strength: float
    paper: Sums = field(default_factory=Sums)
    files: Sums = field(default_factory=Sums)
    baselines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def summarize(self) -> dict[str, Any]:
        """Return the figures of one strength."""
        return {
            **self.paper.summarize(),
            "files": self.files.summarize(),
            "baselines": {
                name: {"psnr": _mean(rows, "psnr"), "ssim": _mean(rows, "ssim"), "seconds": _median(rows)}
                for name, rows in self.baselines.items()
            },
        }


def evaluate_restorer(
    folder: Path,
    file: ModelFile,
    *,
    levels: Sequence[str] | None = None,
    classical: Sequence[str] = (),
) -> dict[str, Any]:
    """Damage clean images, mend them, and measure.

    Args:
        folder: Clean images, in sub-folders or not.
        file: A model that mends.
        levels: Strengths of the damage, as text; default: the model's own.
        classical: Methods of `pipelines.evaluation.classical` that are measured on the same images, or "all".

    Returns:
        `levels[LEVEL]` with `psnr` (dB) and `ssim`, means over the images; `nll` in nats for each value in [0, 1] and
        `constant_nll`, that of the best constant scale; `coverage`, for each share of pixels that the model's intervals
        promise, the share found; `seconds`, the median over the images; `per_image`; and `baselines`: `input`, the
        damaged images themselves (enlarged, where the result is), and the classical methods.

    Raises:
        FolderError: There are no images.
        DataError: A level is not one of the model's task, or no image can be read.
    """
    session = RestoringSession(file, device=settings().device, threads=settings().workers)
    metadata = session.metadata
    if metadata.damage == LEARNED:
        raise DataError(
            f"{file.ref} was trained without pairs, so its damage cannot be added to clean images. Give "
            f"damaged images and their clean twins to `kintsugi restore DAMAGED --reference CLEAN`"
        )
    asked = _parse_levels(levels, metadata)
    others: dict[str, Method] = {
        "input": lambda c, _: enlarge(c, metadata.scale),
        **choose_classical(metadata.task, tuple(classical)),
    }
    files = find_images(folder)
    sums = {text: _Level(level) for text, level in asked.items()}
    tested = EvaluatedImages(file, folder, files)
    images = decode_for(files, metadata, filled=True, bits=bits_for(metadata, files))
    tested.measure(images, lambda image: _measure(session, image, sums, others))
    return {
        "task": metadata.task,
        **tested.finish(),
        "levels": {text: each.summarize() for text, each in sums.items()},
    }


def _parse_levels(levels: Sequence[str] | None, metadata: RestorationMetadata) -> dict[str, float]:
    """Return strengths by the text that they were asked for with."""
    if levels is None:
        return {f"{level:g}": level for level in metadata.levels}
    low, high = restorations()[metadata.task].strengths
    if metadata.scale > 1:
        low = high = metadata.scale
    found = {}
    for text in levels:
        try:
            found[text] = float(text)
        except ValueError:
            raise DataError(f"'{text}' is not a level: give numbers separated by commas, such as 15,25,50") from None
        if not max(low, LEAST_LEVEL) <= found[text] <= high:
            raise DataError(f"level {text}: {metadata.level}, from {low:g} to {high:g}")
    return found


def _measure(
    session: RestoringSession,
    image: Decoded,
    sums: Mapping[str, _Level],
    others: Mapping[str, Method],
) -> None:
    """Damage an image at every level, restore it by every method, and add up what that is worth."""
    metadata = session.metadata
    if min(image.pixels.shape[:2]) < metadata.scale:
        raise ImageError(f"it is smaller than {metadata.scale} pixels")
    scale, form = metadata.scale, ImageFormat(channels=metadata.channels, bit_depth=metadata.bit_depth)
    height, width = (length // scale * scale for length in image.pixels.shape[:2])
    clean = np.ascontiguousarray(image.pixels[:height, :width])
    y = form.to_unit(torch.from_numpy(clean[None]))
    own = y[:, :1] if bool((y == y[:, :1]).all()) else y  # a grey image has one noise, whatever the model takes
    damage = restorations()[metadata.task].damages[metadata.damage]

    def figures(restored: Floats, start: float) -> dict[str, Any]:
        seconds = time.perf_counter() - start
        found = compare(to_samples(restored, clean.dtype), clean, luma=metadata.luma, border=metadata.border)
        return {"path": image.file.relative, **found, "seconds": seconds}

    for each in sums.values():
        generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))
        damaged = damage(own, torch.full((1,), each.strength), generator)[0]
        c = damaged.expand(len(y[0]), -1, -1).permute(1, 2, 0).contiguous().numpy()
        file = (to_samples(c, clean.dtype) / np.float32(form.maximum)).astype(np.float32)
        for given, found in ((c, each.paper), (file, each.files)):
            start = time.perf_counter()
            restored, spread = restore_floats(session, given)
            found.per_image.append(figures(restored, start))
            found.add(restored, spread, y[0].permute(1, 2, 0).numpy(), metadata.intervals)
        for name, method in others.items():
            start = time.perf_counter()
            each.baselines.setdefault(name, []).append(figures(method(c, each.strength), start))


def restore_floats(session: RestoringSession, c: Floats) -> tuple[Floats, Floats]:
    """Restore a damaged image (h, w, C), values in [0, 1] or beyond: what it shows, and the scale."""
    metadata = session.metadata
    shape = (c.shape[0] * metadata.scale, c.shape[1] * metadata.scale, c.shape[2])
    restored, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)
    seen = c[..., :1] if is_grey(c) else c  # as a batch job mends it
    run, _ = adapt_channels(session, seen.shape[2])

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        restored[place], spread[place] = outputs

    in_tiles(session, seen, keep, run=lambda tile, _: run(tile), side=SIDE)
    return restored, spread


def enlarge(c: Floats, scale: int) -> Floats:
    """Enlarge as the bicubic row of the papers does: a = -0.5, as pictures are made smaller with."""
    if scale == 1:
        return c
    whole = torch.from_numpy(np.ascontiguousarray(c)).permute(2, 0, 1)[None]
    larger = torch.nn.functional.interpolate(
        whole, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    found: Floats = larger[0].permute(1, 2, 0).numpy()
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(known)) if known else None


def _median(rows: Sequence[dict[str, Any]]) -> float:
    return float(np.median([row["seconds"] for row in rows]))
