"""Figures of merit of a model that colours, on images whose colours are known: it is given their luma alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.evaluation.evaluated_images import EvaluatedImages
from pipelines.evaluation.restorer import Sums
from pipelines.images import Decoded, find_images
from pipelines.models.inputs import bits_for, decode_for
from pipelines.models.model_file import ModelFile
from pipelines.models.session import ColorizingSession, keyed_generator
from pipelines.restoration.colorizer import add_chroma, is_colourful, luma_of, reduce_image, shares_of
from pipelines.restoration.quality import compare
from pipelines.restoration.restorer import to_samples
from pipelines.settings import settings
from vaecore.graphs.colorization import colourfulness
from vaecore.representations.image_format import ImageFormat

log = logging.getLogger(__name__)
Floats = NDArray[np.float32]
LEVEL = "default"  # the one strength at which colours are taken out
EIGHT = np.dtype(np.uint8)
SAMPLES = 4  # of each image


def evaluate_colorizer(folder: Path, file: ModelFile) -> dict[str, Any]:
    """Take the colours out of images, and compare those that the model gives them with their own.

    Args:
        folder: Colour images, in sub-folders or not. Grey ones are left out.
        file: A model that colours.

    Returns:
        `levels["default"]`, means over the images: `psnr` (dB) and `ssim`; `ab_mae`, the mean absolute error of a and b
        of CIELAB; `ab_rmse`, the root of their mean squared distance; `colourfulness`; `nll`, `constant_nll` and
        `coverage` of the error bars; `seconds`, the median; `per_image`; and `baselines`: `input`, the grey image,
        `own_mean`, the image's own mean colour everywhere, which no model can know, and `sample`, one colouring that
        is drawn. `colourfulness_ratio` is that of samples by that of the images; `difference`, how far samples of an
        image are apart, the standard deviation of a value in 8-bit levels. Images beyond a megapixel are measured
        reduced to less, the size at which colours are found.

    Raises:
        FolderError: There are no images.
        DataError: None can be read, or all are grey.
    """
    session = ColorizingSession(file, device=settings().device, threads=settings().workers)
    metadata = session.metadata
    form = ImageFormat(channels=3, bit_depth=metadata.bit_depth)
    files, sums = find_images(folder), Sums()
    tested = EvaluatedImages(file, folder, files)
    images = decode_for(files, form, filled=True, bits=bits_for(metadata, files))
    rows = tested.measure(
        images,
        lambda image: _measure(session, sums, image),
        accept=lambda image: is_colourful(image.pixels),
    )
    if grey := tested.refused:
        if not rows:
            raise DataError(f"there is nothing to measure: all {len(files)} images under {folder} are grey")
        log.warning("left out %d grey images", grey)
    return {
        "task": metadata.task,
        **tested.finish(),
        "n_grey": grey,
        "levels": {LEVEL: _average(rows) | sums.measure_error_bars()},
    }


def _average(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def means(kind: str) -> dict[str, float | None]:
        return {name: mean(row[kind][name] for row in rows) for name in rows[0][kind]}

    true, drawn = mean(row["colourfulness"] for row in rows), mean(row["sample"]["colourfulness"] for row in rows)
    assert true is not None and drawn is not None  # noqa: PT018, S101 - images without colours are left out
    return {
        **means("mean"),
        "colourfulness_ratio": drawn / true,
        "difference": mean(row["difference"] for row in rows),
        "baselines": {name: means(name) for name in ("input", "own_mean", "sample")},
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "per_image": rows,
    }


def _measure(session: ColorizingSession, sums: Sums, image: Decoded) -> dict[str, Any]:
    from skimage.color import rgb2lab

    y = reduce_image(image.pixels, shares_of)  # a batch job finds colours at this size, too
    luma = luma_of(y)
    start = time.perf_counter()
    restored, spread = (each[0] for each in session.run(luma[None]))
    seconds = time.perf_counter() - start
    noise = keyed_generator(image.sha256).standard_normal((SAMPLES, session.metadata.latents), dtype=np.float32)
    samples = [add_chroma(luma, session.run(luma[None], each[None])[0][0] - luma) for each in noise]
    mean = add_chroma(luma, restored - luma)
    sums.add(mean, spread, y, session.metadata.intervals)
    true = rgb2lab(y)[..., 1:]

    def figures(made: Floats) -> dict[str, float | None]:
        apart = rgb2lab(made)[..., 1:] - true
        return {
            **compare(to_samples(made, EIGHT), to_samples(y, EIGHT)),
            "ab_mae": float(np.abs(apart).mean()),
            "ab_rmse": float(np.sqrt(np.square(apart).sum(axis=2).mean())),
            "colourfulness": _measure_colourfulness(made),
        }

    own = true.mean(axis=(0, 1)) - true
    return {
        "path": image.file.relative,
        "mean": figures(mean),
        "input": figures(np.repeat(luma, 3, axis=2)),
        "own_mean": {
            "ab_mae": float(np.abs(own).mean()),
            "ab_rmse": float(np.sqrt(np.square(own).sum(axis=2).mean())),
        },
        "sample": figures(samples[0])
        | {"colourfulness": float(np.mean([_measure_colourfulness(each) for each in samples]))},
        "colourfulness": _measure_colourfulness(y),
        "difference": 255 * float(np.std(samples, axis=0).mean()),
        "seconds": seconds,
    }


def _measure_colourfulness(image: Floats) -> float:
    return float(colourfulness(torch.from_numpy(image).permute(2, 0, 1)[None]))
