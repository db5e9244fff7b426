"""Figures of merit of a model that mends: clean images are damaged with fixed seeds, mended, and compared.

Noise is added in float and not clipped, as in the papers; what is measured is what a file would hold: clipped, and
rounded to its depth. The seed is each file's sha256: the same image gets the same noise in every folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.classical import Method, choose_classical
from pipelines.errors import DataError, FolderError
from pipelines.images import Decoded, Failed, find_images
from pipelines.inputs import decode_for
from pipelines.leakage import remember_test_images
from pipelines.mend import SIDE
from pipelines.modelfile import ModelFile, RestorationMetadata
from pipelines.output import write_json
from pipelines.progress import Advance, progress
from pipelines.quality import compare
from pipelines.session import RestoringSession
from pipelines.settings import settings
from pipelines.tiles import run_in_tiles
from vaecore.image_format import ImageFormat
from vaecore.tasks import restorations

log = logging.getLogger(__name__)
Floats = NDArray[np.float32]


@dataclass(slots=True)
class _Sums:
    """What is added up over the images of one level."""

    per_image: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    values: int = 0
    log_likelihood: float = 0.0
    squared_error: float = 0.0
    inside: dict[str, int] = field(default_factory=dict)


def evaluate_restorer(
    folder: Path,
    file: ModelFile,
    *,
    levels: Sequence[float] | None = None,
    classical: Sequence[str] = (),
    json_path: Path | None = None,
) -> dict[str, Any]:
    """Damage clean images, mend them, and measure.

    Args:
        folder: Clean images, in sub-folders or not.
        file: A model that mends.
        levels: Strengths of the damage; default: the model's own.
        classical: Methods of `pipelines.classical` that are measured on the same images, or "all".
        json_path: Where to write the figures.

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
    asked = _levels(levels, metadata)
    others: dict[str, Method] = {
        "input": lambda c, _: enlarged(c, metadata.scale),
        **choose_classical(metadata.task, tuple(classical)),
    }
    files = find_images(folder)
    sums = {level: _Sums() for level in asked}
    failed: list[str] = []
    tested: dict[str, NDArray[Any]] = {}
    with progress(log, "evaluate", len(files) * len(asked), "images") as advance:
        for image in decode_for(files, metadata):
            if isinstance(image, Failed):
                log.warning("left out %s: %s", image.file.relative, image.reason)
                failed.append(image.file.relative)
                continue
            tested[image.file.relative] = image.pixels
            _measure(session, image, sums, others, advance)
            if len(tested) % 100 == 0:
                remember_test_images(folder, tested)
    if not tested:
        raise DataError(f"none of {len(files)} images under {folder} can be read")
    remember_test_images(folder, tested)
    figures = {
        "task": metadata.task,
        "n_images": len(tested),
        "n_failed": len(failed),
        "levels": {f"{level:g}": _figures(each) for level, each in sums.items()},
    }
    if json_path is not None:
        write_json(json_path, figures)
    return figures


def describe_restoration(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a terminal."""
    yield f"{figures['task']} of {figures['n_images']} images"
    for level, each in figures["levels"].items():
        given = each["baselines"]["input"]
        yield (
            f"  level {level:5} PSNR {each['psnr']:.2f} dB (input {given['psnr']:.2f}), SSIM {_text(each['ssim'])} "
            f"(input {_text(given['ssim'])}), {each['seconds']:.2f} s for each image"
        )
        for name, other in each["baselines"].items():
            if name != "input":
                yield (
                    f"        {name:10} PSNR {other['psnr']:.2f} dB, SSIM {_text(other['ssim'])}, "
                    f"{other['seconds']:.2f} s for each image"
                )
        found = ", ".join(f"{float(share):.0%}: {inside:.1%}" for share, inside in each["coverage"].items())
        yield f"        error bars: NLL {each['nll']:.3f} nats (constant {each['constant_nll']:.3f}); coverage {found}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _levels(levels: Sequence[float] | None, metadata: RestorationMetadata) -> list[float]:
    if levels is None:
        return list(metadata.levels)
    if metadata.scale > 1 and any(level != metadata.scale for level in levels):
        raise DataError(f"the model enlarges {metadata.scale} times: it has no other level")
    return list(dict.fromkeys(levels))


def _measure(
    session: RestoringSession,
    image: Decoded,
    sums: dict[float, _Sums],
    others: Mapping[str, Method],
    advance: Advance,
) -> None:
    metadata = session.metadata
    scale, form = metadata.scale, ImageFormat(channels=metadata.channels, bit_depth=metadata.bit_depth)
    height, width = (length // scale * scale for length in image.pixels.shape[:2])
    if not (height and width):
        raise FolderError(f"{image.file.path} is smaller than {scale} pixels: leave it out")
    clean = np.ascontiguousarray(image.pixels[:height, :width])
    y = form.to_unit(torch.from_numpy(clean[None]))
    damage = restorations()[metadata.task].damages[metadata.damage]

    def figures(restored: Floats, start: float) -> dict[str, Any]:
        seconds = time.perf_counter() - start
        border = scale if metadata.luma else 0
        found = compare(as_file(restored, clean), clean, luma=metadata.luma, border=border)
        return {"path": image.file.relative, **found, "seconds": seconds}

    for level, each in sums.items():
        generator = torch.Generator().manual_seed(int(image.sha256[:15], 16))
        c = damage(y, torch.full((1,), level), generator)[0].permute(1, 2, 0).contiguous().numpy()
        start = time.perf_counter()
        restored, spread = restored_floats(session, c)
        each.per_image.append(figures(restored, start))
        _add(each, restored, spread, y[0].permute(1, 2, 0).numpy(), metadata.intervals)
        for name, method in others.items():
            start = time.perf_counter()
            each.baselines.setdefault(name, []).append(figures(method(c, level), start))
        advance()


def restored_floats(session: RestoringSession, c: Floats) -> tuple[Floats, Floats]:
    """A damaged image (h, w, C), values in [0, 1] or beyond, through the model: what it shows, and the scale."""
    metadata = session.metadata
    shape = (c.shape[0] * metadata.scale, c.shape[1] * metadata.scale, c.shape[2])
    restored, spread = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def keep(place: tuple[slice, slice], outputs: tuple[Floats, ...]) -> None:
        restored[place], spread[place] = outputs

    run_in_tiles(
        c, session.run, keep, to_float=lambda part: part.astype(np.float32),
        side=SIDE, halo=metadata.halo or 0, multiple=metadata.size_multiple, upscale=metadata.scale,
    )  # fmt: skip
    return restored, spread


def enlarged(c: Floats, scale: int) -> Floats:
    """The bicubic row of the papers: a = -0.5, as pictures are made smaller with."""
    if scale == 1:
        return c
    whole = torch.from_numpy(np.ascontiguousarray(c)).permute(2, 0, 1)[None]
    larger = torch.nn.functional.interpolate(
        whole, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    found: Floats = larger[0].permute(1, 2, 0).numpy()
    return found


def as_file(values: Floats, like: NDArray[Any]) -> NDArray[Any]:
    """Values in [0, 1] as a file of that depth holds them."""
    largest = np.iinfo(like.dtype).max
    return (np.clip(values, 0, 1) * largest + 0.5).astype(like.dtype)


def _add(each: _Sums, restored: Floats, spread: Floats, y: Floats, intervals: dict[str, float]) -> None:
    error = np.abs(restored - y).astype(np.float64)
    ratio = error / spread
    each.values += error.size
    each.squared_error += float(np.square(error).sum())
    each.log_likelihood -= float((0.5 * np.square(ratio) + np.log(spread) + 0.5 * np.log(2 * np.pi)).sum())
    for share, width in intervals.items():
        each.inside[share] = each.inside.get(share, 0) + int((ratio <= width).sum())


def _figures(each: _Sums) -> dict[str, Any]:
    variance = each.squared_error / each.values
    return {
        "psnr": _mean(each.per_image, "psnr"),
        "ssim": _mean(each.per_image, "ssim"),
        "nll": -each.log_likelihood / each.values,
        "constant_nll": float(0.5 * np.log(2 * np.pi * np.e * max(variance, 1e-12))),
        "coverage": {share: inside / each.values for share, inside in each.inside.items()},
        "seconds": _median(each.per_image),
        "baselines": {
            name: {"psnr": _mean(rows, "psnr"), "ssim": _mean(rows, "ssim"), "seconds": _median(rows)}
            for name, rows in each.baselines.items()
        },
        "per_image": each.per_image,
    }


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(known)) if known else None


def _median(rows: Sequence[dict[str, Any]]) -> float:
    return float(np.median([row["seconds"] for row in rows]))
