"""Pixels as pictures for people: fit for a screen, reduced, and encoded for a report."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rgba = NDArray[np.uint8]  # (H, W, 4)

LONGEST = 320
"""Longest side of a thumbnail, in pixels."""


def to_8_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Make an image fit for a screen.

    Args:
        image: (H, W, C), uint8 or uint16.

    Returns:
        uint8 as it is. 16 bits stretched from the 0.5th to the 99.5th percentile over all channels together, since such
        images often fill a small part of their range; colours keep their balance.
    """
    if image.dtype == np.uint8:
        return image
    step = max(1, int(np.sqrt(image.shape[0] * image.shape[1] / 1e6)))  # a million pixels tell the percentiles
    low, high = np.percentile(image[::step, ::step], [0.5, 99.5])
    if high <= low:
        return (image // 257).astype(np.uint8)
    stretched = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return stretched.round().clip(0, 255).astype(np.uint8)


def thumbnail(image: NDArray[Any], longest: int = LONGEST) -> bytes:
    """Reduce an image to a JPEG for a report; it is never enlarged.

    Args:
        image: (H, W, C), uint8 or uint16, grey or RGB.
        longest: Longest side, in pixels.
    """
    picture = _picture(to_8_bits(image))
    picture = picture.resize(_reduced_size(picture.size, longest), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def png(pixels: NDArray[np.uint8], longest: int | None = None) -> bytes:
    """Encode a picture as PNG.

    Args:
        pixels: (H, W, C), grey, RGB or RGBA.
        longest: Reduce to this longest side, in pixels, as `thumbnail` does, so that a heat map lies on its thumbnail.
            In a heat map each place keeps its strongest colour: a small defect must not fade away.
    """
    picture = _picture(pixels)
    if longest is not None and max(picture.size) > longest:
        size = _reduced_size(picture.size, longest)
        if pixels.shape[2] == 4:
            picture = _picture(_strongest(pixels, math.ceil(max(picture.size) / longest)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = min(1.0, longest / max(size))
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def _strongest(heat: Rgba, factor: int) -> Rgba:
    """The most opaque pixel of each factor x factor block."""
    height, width = heat.shape[:2]
    padded = np.pad(heat, ((0, -height % factor), (0, -width % factor), (0, 0)))
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    blocks = padded.reshape(rows, factor, columns, factor, 4).swapaxes(1, 2).reshape(rows, columns, factor**2, 4)
    best = blocks[..., 3].argmax(axis=2)
    return np.take_along_axis(blocks, best[..., None, None], axis=2)[:, :, 0]
