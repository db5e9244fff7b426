"""Figures of merit of a model that colours, on images whose colours are known: it is given their luma alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.colour import luma_of
from pipelines.errors import DataError
from pipelines.evaluate_restorer import Sums, describe_error_bars
from pipelines.images import Failed, find_images
from pipelines.inputs import decode_for
from pipelines.leakage import digests_of_tested, remember_test_images
from pipelines.mend import as_file
from pipelines.modelfile import ModelFile
from pipelines.output import write_json
from pipelines.photos import pixel_digest
from pipelines.progress import progress
from pipelines.quality import compare
from pipelines.session import ColorizingSession, keyed_generator
from pipelines.settings import settings
from vaecore.colorization import colourfulness
from vaecore.image_format import ImageFormat

log = logging.getLogger(__name__)
Floats = NDArray[np.float32]
GREY = 1.0  # of colourfulness, in 8-bit levels: an image that is less colourful has no colours to find
SAMPLES = 4  # of each image


def evaluate_colorizer(folder: Path, file: ModelFile, *, json_path: Path | None = None) -> dict[str, Any]:
    """Take the colours out of images, and compare those that the model gives them with their own.

    Args:
        folder: Colour images, in sub-folders or not. Grey ones are left out.
        file: A model that colours.
        json_path: Where to write the figures.

    Returns:
        `ab_error`: mean absolute error of a and b of CIELAB, a mean over the images, of the model's `mean` and
        `sample`, of `grey`, and of `own_mean`, the image's own mean colour everywhere, which no model can know;
        `ab_rmse`, of the root of the mean squared distance. `colourfulness` of the `true` images, the `mean` and
        `sample`. `difference`: how far samples of an image are apart, the standard deviation of a value in 8-bit
        levels. `psnr` in dB of the mean, and `grey_psnr`; `nll`, `constant_nll` and `coverage` of its error bars;
        `seconds`, the median for an image; `per_image`.

    Raises:
        FolderError: There are no images.
        DataError: None can be read, or all are grey.
    """
    session = ColorizingSession(file, device=settings().device, threads=settings().workers)
    metadata = session.metadata
    form = ImageFormat(channels=3, bit_depth=metadata.bit_depth)
    files, sums = find_images(folder), Sums()
    failed, grey, tested, known = 0, 0, list[str](), 0
    trained_on, own = file.trained_on, file.images_of_training
    with progress(log, "evaluate", len(files), "images") as advance:
        for image in decode_for(files, form):
            advance()
            if isinstance(image, Failed):
                log.warning("left out %s: %s", image.file.relative, image.reason)
                failed += 1
                continue
            y = (image.pixels / np.float32(form.maximum)).astype(np.float32)
            if _colourful(y) < GREY:
                grey += 1
                continue
            digest = pixel_digest(image.pixels)
            known += digest in trained_on
            tested += digests_of_tested(image.pixels) if digest not in own else []
            _measure(session, sums, image.file.relative, image.sha256, y)
    rows = sums.per_image
    if not rows:
        why = "are grey" if grey else "cannot be read"
        raise DataError(f"there is nothing to measure: all {len(files)} images under {folder} {why}")
    if grey:
        log.warning("left out %d grey images", grey)
    if known:
        log.warning("%d of %d images were trained on: these figures promise too much", known, len(rows))
    remember_test_images(folder, tested)

    def means(name: str) -> dict[str, float]:
        return {kind: float(np.mean([row[name][kind] for row in rows])) for kind in rows[0][name]}

    figures = {
        "task": metadata.task,
        "n_images": len(rows),
        "n_trained_on": known,
        "n_failed": failed,
        "n_grey": grey,
        **{name: means(name) for name in ("ab_error", "ab_rmse", "colourfulness")},
        **{name: float(np.mean([row[name] for row in rows])) for name in ("difference", "psnr", "grey_psnr")},
        **sums.error_bars(),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "per_image": rows,
    }
    if json_path is not None:
        write_json(json_path, figures)
    return figures


def describe_colorization(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a terminal."""
    error, colours = figures["ab_error"], figures["colourfulness"]
    yield f"{figures['task']} of {figures['n_images']} images, {figures['seconds']:.2f} s for each"
    yield (
        f"  error of a and b: {error['mean']:.2f}, of a sample {error['sample']:.2f} (grey {error['grey']:.2f}, the "
        f"image's own mean colour {error['own_mean']:.2f})"
    )
    yield (
        f"  colourfulness: {colours['mean']:.1f}, of samples {colours['sample']:.1f} (true {colours['true']:.1f}); "
        f"samples are {figures['difference']:.1f} levels apart"
    )
    yield f"  PSNR {figures['psnr']:.2f} dB (grey {figures['grey_psnr']:.2f}); {describe_error_bars(figures)}"


def _measure(session: ColorizingSession, sums: Sums, name: str, digest: str, y: Floats) -> None:
    from skimage.color import rgb2lab

    luma = luma_of(y)
    start = time.perf_counter()
    restored, spread = (each[0] for each in session.run(luma[None]))
    seconds = time.perf_counter() - start
    noise = keyed_generator(digest).standard_normal((SAMPLES, session.metadata.latents), dtype=np.float32)
    samples = [session.run(luma[None], each[None])[0][0].clip(0, 1) for each in noise]
    sums.add(restored, spread, y, session.metadata.intervals)
    true = rgb2lab(y)[..., 1:]
    made = {
        "mean": rgb2lab(restored.clip(0, 1))[..., 1:],
        "sample": rgb2lab(samples[0])[..., 1:],
        "grey": np.zeros_like(true),
        "own_mean": np.broadcast_to(true.mean(axis=(0, 1)), true.shape),
    }
    files = [as_file(each, np.dtype(np.uint8)) for each in (restored, np.repeat(luma, 3, axis=2), y)]
    sums.per_image.append(
        {
            "path": name,
            "ab_error": {kind: float(np.abs(ab - true).mean()) for kind, ab in made.items()},
            "ab_rmse": {kind: float(np.sqrt(np.square(ab - true).sum(axis=2).mean())) for kind, ab in made.items()},
            "colourfulness": {
                "true": _colourful(y),
                "mean": _colourful(restored.clip(0, 1)),
                "sample": float(np.mean([_colourful(each) for each in samples])),
            },
            "difference": 255 * float(np.std(samples, axis=0).mean()),
            "psnr": compare(files[0], files[2])["psnr"],
            "grey_psnr": compare(files[1], files[2])["psnr"],
            "seconds": seconds,
        }
    )


def _colourful(image: Floats) -> float:
    return float(colourfulness(torch.from_numpy(image).permute(2, 0, 1)[None]))
