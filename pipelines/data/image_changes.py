"""Changes of light and camera: plain functions of the pixels of an image, (H, W, C) uint8 or uint16.

A threshold meets them after its calibration; where a job declares them as normal, training shows them to the model.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[Any]
Change = Callable[[Pixels, np.random.Generator], Pixels]

EXPOSURE = 1.25  # largest factor by which images may be brighter, or darker
BLUR = 1.5  # standard deviation, in pixels, up to which they may be less sharp
NOISE = 5.0  # standard deviation, in levels of 255
SHIFT = 0.02  # of each side, in every direction
COLOUR = 1.1  # times more, or less, red and blue


def expose(pixels: Pixels, *, factor: float) -> Pixels:
    """Multiply the brightness."""
    return _as_pixels(pixels.astype(np.float32) * factor, pixels)


def blur(pixels: Pixels, *, sigma: float) -> Pixels:
    """Blur by a Gaussian of a standard deviation in pixels."""
    return _as_pixels(ndimage.gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0)), pixels)


def add_noise(pixels: Pixels, generator: np.random.Generator, *, levels: float) -> Pixels:
    """Add Gaussian noise of a standard deviation in levels of 255."""
    scale = levels / 255 * np.iinfo(pixels.dtype).max
    return _as_pixels(pixels + generator.standard_normal(pixels.shape, np.float32) * scale, pixels)


def save_as_jpeg(pixels: Pixels, *, quality: int) -> Pixels:
    """Write as JPEG, which has 8 bits, and read again."""
    scale = np.iinfo(pixels.dtype).max / 255
    eight = np.rint(pixels / scale).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight).save(buffer, "jpeg", quality=quality)
    return _as_pixels(np.asarray(Image.open(buffer), np.float32).reshape(pixels.shape) * scale, pixels)


def move(pixels: Pixels, *, down: float, across: float) -> Pixels:
    """Move the picture by shares of its sides; the part that is still seen is enlarged to the same size."""
    kept = []
    for length, share in zip(pixels.shape[:2], (down, across), strict=True):
        step = round(share * length)
        kept.append(slice(max(0, step), length + min(0, step)))
    return _resized(pixels[kept[0], kept[1]].astype(np.float32), pixels)


def turn(pixels: Pixels, *, degrees: float) -> Pixels:
    """Turn the picture around its centre; what lies within it on all sides is enlarged to the same size."""
    turned = ndimage.rotate(pixels.astype(np.float32), degrees, reshape=False, order=3, mode="mirror")
    sine = abs(math.sin(math.radians(degrees)))
    margins = [min(math.ceil(length * sine / 2), (length - 1) // 2) for length in pixels.shape[1::-1]]
    kept = [slice(margin, length - margin) for margin, length in zip(margins, pixels.shape[:2], strict=True)]
    return _resized(turned[kept[0], kept[1]], pixels)


def cast_colour(pixels: Pixels, *, red: float, blue: float) -> Pixels:
    """Multiply red and blue, as another lamp does; grey images stay as they are."""
    if pixels.shape[2] == 1:
        return pixels
    return _as_pixels(pixels * np.array([red, 1, blue], np.float32), pixels)


def _any_exposure(pixels: Pixels, generator: np.random.Generator, _: float) -> Pixels:
    return expose(pixels, factor=EXPOSURE ** generator.uniform(-1, 1))


def _any_sharpness(pixels: Pixels, generator: np.random.Generator, scale: float) -> Pixels:
    return blur(pixels, sigma=scale * generator.uniform(0, BLUR))


def _any_noise(pixels: Pixels, generator: np.random.Generator, scale: float) -> Pixels:
    return add_noise(pixels, generator, levels=scale * generator.uniform(0, NOISE))


def _any_place(pixels: Pixels, generator: np.random.Generator, _: float) -> Pixels:
    down, across = generator.uniform(-SHIFT, SHIFT, 2)
    return move(pixels, down=down, across=across)


def _any_colour(pixels: Pixels, generator: np.random.Generator, _: float) -> Pixels:
    red, blue = COLOUR ** generator.uniform(-1, 1, 2)
    return cast_colour(pixels, red=red, blue=blue)


# In the order in which a camera makes them.
NORMAL_CHANGES: dict[str, Callable[[Pixels, np.random.Generator, float], Pixels]] = {
    "shift": _any_place,
    "sharpness": _any_sharpness,
    "exposure": _any_exposure,
    "colour": _any_colour,
    "noise": _any_noise,
}


def vary(pixels: Pixels, changes: Sequence[str], generator: np.random.Generator, scale: float = 1.0) -> Pixels:
    """Change an image in all of these ways, each as strongly as chance has it; equal generators, equal images.

    Args:
        pixels: (H, W, C), uint8 or uint16.
        changes: Names of `NORMAL_CHANGES`.
        generator: Of chance.
        scale: Size of the image, as a share of that of the file: of a smaller one, blur and noise are less.
    """
    for name, change in NORMAL_CHANGES.items():
        if name in changes:
            pixels = change(pixels, generator, scale)
    return pixels


def _resized(values: NDArray[np.float32], like: Pixels) -> Pixels:
    if values.shape == like.shape:
        return _as_pixels(values, like)
    factors = [after / before for after, before in zip(like.shape, values.shape, strict=True)]
    return _as_pixels(ndimage.zoom(values, factors, order=3, mode="mirror", grid_mode=True), like)


def _as_pixels(values: NDArray[np.float32], like: Pixels) -> Pixels:
    return np.rint(values).clip(0, np.iinfo(like.dtype).max).astype(like.dtype)
