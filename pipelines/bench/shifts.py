"""Changes of light and camera that good images go through: what a threshold meets after its calibration.

Each is a plain function of the pixels of an image, (H, W, C) uint8 or uint16, and a generator; equal generators give
equal images.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[Any]
Shift = Callable[[Pixels, np.random.Generator], Pixels]


def expose(pixels: Pixels, _: np.random.Generator, *, factor: float) -> Pixels:
    """Multiply the brightness."""
    return _as_pixels(pixels.astype(np.float32) * factor, pixels)


def blur(pixels: Pixels, _: np.random.Generator, *, sigma: float) -> Pixels:
    """Blur by a Gaussian of a standard deviation in pixels."""
    return _as_pixels(ndimage.gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0)), pixels)


def add_noise(pixels: Pixels, generator: np.random.Generator, *, levels: float) -> Pixels:
    """Add Gaussian noise of a standard deviation in levels of 255."""
    scale = levels / 255 * np.iinfo(pixels.dtype).max
    noise = generator.standard_normal(pixels.shape, np.float32) * scale
    return _as_pixels(pixels + noise, pixels)


def save_as_jpeg(pixels: Pixels, _: np.random.Generator, *, quality: int) -> Pixels:
    """Write as JPEG, which has 8 bits, and read again."""
    scale = np.iinfo(pixels.dtype).max / 255
    eight = np.rint(pixels / scale).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight).save(buffer, "jpeg", quality=quality)
    return _as_pixels(np.asarray(Image.open(buffer), np.float32).reshape(pixels.shape) * scale, pixels)


def move(pixels: Pixels, _: np.random.Generator, *, share: float) -> Pixels:
    """Move the picture right and down by a share of each side; what comes in is mirrored."""
    steps = (share * pixels.shape[0], share * pixels.shape[1], 0)
    return _as_pixels(ndimage.shift(pixels.astype(np.float32), steps, order=1, mode="mirror"), pixels)


def turn(pixels: Pixels, _: np.random.Generator, *, degrees: float) -> Pixels:
    """Turn the picture around its centre; what comes in is mirrored."""
    turned = ndimage.rotate(pixels.astype(np.float32), degrees, reshape=False, order=1, mode="mirror")
    return _as_pixels(turned, pixels)


def cast_colour(pixels: Pixels, _: np.random.Generator, *, red: float, blue: float) -> Pixels:
    """Multiply red and blue, as another lamp does; grey images stay as they are."""
    if pixels.shape[2] == 1:
        return pixels
    return _as_pixels(pixels * np.array([red, 1, blue], np.float32), pixels)


SHIFTS: dict[str, Shift] = {
    "none": lambda pixels, _: pixels,
    "exposure x0.8": partial(expose, factor=0.8),
    "exposure x1.25": partial(expose, factor=1.25),
    "blur 1": partial(blur, sigma=1.0),
    "blur 2": partial(blur, sigma=2.0),
    "noise 5": partial(add_noise, levels=5.0),
    "jpeg 60": partial(save_as_jpeg, quality=60),
    "shift 2 %": partial(move, share=0.02),
    "turn 1": partial(turn, degrees=1.0),
    "colour cast": partial(cast_colour, red=1.1, blue=0.9),
}


def _as_pixels(values: NDArray[np.float32], like: Pixels) -> Pixels:
    return np.rint(values).clip(0, np.iinfo(like.dtype).max).astype(like.dtype)
