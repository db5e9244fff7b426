"""How much fine noise an image has: what a report says was taken out, and what was left in."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.images.samples import Samples

BLOCK = 16  # pixels along a side
LEAST_BLOCKS = 64  # of an image (128 x 128 pixels): in fewer the flattest is as likely fine texture
SCALES = (1, 2)  # that noise is looked for at
FLAT = 0.05  # quantile of the blocks: there is hardly any detail in so many of most images
LAPLACIAN = 6.0  # root of the sum of the squared weights of the mask
_BAND = 512  # rows at a time; a multiple of the blocks
SEEN = 0.8 / 255  # of white: with less noise than that, there is little to do
MUCH = 0.5  # share of the noise that is left, above which the model may not know noise of this kind


def estimate_noise(pixels: Samples) -> float | None:
    """Estimate the standard deviation of an image's noise where it is flattest, as a share of the range of values.

    It is looked for at full and at half size, since cameras leave noise that is coarser than pixels; the larger one
    counts. What JPEG has wiped out does not.

    Args:
        pixels: (H, W, C), uint8 or uint16.

    Returns:
        Root mean square over the channels; None for images of fewer than `LEAST_BLOCKS`.

    Source: Immerkaer 1996, "Fast noise variance estimation", eq. 1, by block, of which the flatter ones count.
    """
    height, width = pixels.shape[:2]
    if (height // BLOCK) * (width // BLOCK) < LEAST_BLOCKS:
        return None
    found: dict[int, list[NDArray[np.float64]]] = {scale: [np.empty(0)] for scale in SCALES}
    for top in range(0, pixels.shape[0], _BAND):
        band = pixels[top : top + _BAND + 2 * max(SCALES)]
        values = band.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
        for scale in SCALES:
            found[scale].append(_measure_blocks(_reduce(values, scale)))
    blocks = [np.concatenate(each) for each in found.values()]
    return max(math.sqrt(float(np.quantile(each, FLAT))) / LAPLACIAN if each.size else 0.0 for each in blocks)


def is_left(noise: float, left: float, strength: float) -> bool:
    """Return whether most of the noise that should have gone is still there; fine texture looks like noise, too."""
    return noise >= SEEN and left - (1 - strength) * noise >= MUCH * strength * noise


def describe_left_noise(left: int, images: int) -> str:
    """Return a warning of a run after which most images are as noisy as before."""
    return (
        f"{left} of {images} images are nearly as noisy as before. Compare some: fine texture counts as noise. If it "
        "is noise, it is unlike the noise that the model was trained on: try another model, or train one on such images"
    )


def _reduce(values: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Mean of squares of pixels."""
    height, width = (length // scale * scale for length in values.shape[:2])
    parts = [values[row:height:scale, column:width:scale] for row in range(scale) for column in range(scale)]
    mean: NDArray[np.float32] = sum(parts[1:], parts[0]) / np.float32(scale**2)
    return mean


def _measure_blocks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean square of the mask's response in each whole block, and over channels."""
    height, width = ((length - 2) // BLOCK * BLOCK for length in values.shape[:2])
    if min(height, width) < BLOCK:
        return np.empty(0)
    values = values[: height + 2, : width + 2]
    rows = values[:-2] - 2 * values[1:-1] + values[2:]
    response = np.square(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]).mean(axis=2)
    blocks: NDArray[np.float64] = response.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3))
    return blocks.ravel().astype(np.float64)
