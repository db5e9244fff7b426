"""Pixels as the file has them to pixels as the model wants them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.bits import ALL, bits_of, narrowest, stretch
from pipelines.images.image import Image
from pipelines.images.samples import Samples

# Rec. 601 luma in units of 1/65536, rounded so that they add up to one: grey stays grey to the bit.
_RED, _GREEN, _BLUE = 19595, 38470, 7471
_ROWS = 64  # converted at a time, so that the 32-bit sums stay in the cache


def to_model_input(image: Image, *, channels: int, dtype: np.dtype[Any], bits: int = ALL) -> tuple[Samples, str | None]:
    """Convert the pixels of an image to the channels and depth of a model.

    Grey becomes RGB by repetition, RGB becomes grey by the Rec. 601 luma (0.299, 0.587, 0.114), rounded, in the file's
    own depth. 8 bits become 16 as 257 times the value, 16 become 8 as the rounded value / 257: up and down again is
    the identity. Alpha is left aside: the colour under it is used as it is.

    Args:
        image: A decoded image.
        channels: 1 (grey) or 3 (RGB).
        dtype: uint8 or uint16.
        bits: That 16-bit files fill; fewer are brought to all 16 before anything else.

    Returns:
        (H, W, channels) in `dtype`, the image's own array where nothing changes; and what was converted when the depth
        changed, or that 16 bits are hardly used, else None.

    Raises:
        ValueError: other channels or dtypes, with the value.
    """
    check_target(channels, dtype)
    pixels, used = image.pixels, bits_of(image, bits)
    note = hardly_used(image) if used == ALL else f"read as {used} bits"
    pixels = stretch(pixels, used)
    if pixels.shape[2] == 3 and channels == 1:
        pixels = luma(pixels)
    if dtype == np.uint16 and pixels.dtype == np.uint8:
        pixels = pixels * np.uint16(257)
        note = f"{image.bit_depth}-bit file scaled to 16 bits"
    elif dtype == np.uint8 and pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels)
        note = f"{image.bit_depth}-bit file scaled to 8 bits" + (f"; {note}" if note else "")
    if pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels, note


def hardly_used(image: Image) -> str | None:
    """That the values of a 16-bit image end where those of a camera of 12 bits do, if so: it is read as dark as that.

    Only a person can tell such files from pictures of the dark.
    """
    if image.pixels.dtype != np.uint16 or narrowest(largest := int(image.pixels.max())) == ALL:
        return None
    return f"its values end at {largest} of 65535: nearly black, unless they are multiplied before"


def check_target(channels: int, dtype: np.dtype[Any]) -> None:
    """Refuse a layout that no model file has.

    Raises:
        ValueError: the value, and those that are possible.
    """
    if channels not in {1, 3}:
        raise ValueError(f"channels is {channels}: 1 (grey) and 3 (RGB) are possible")
    if dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise ValueError(f"dtype is {dtype}: uint8 and uint16 are possible")


def to_8_bits(pixels: Samples) -> Samples:
    """16-bit samples (H, W, C) as 8-bit ones, rounded."""
    scaled = np.empty(pixels.shape, np.uint8)
    for top in range(0, pixels.shape[0], _ROWS):
        wide = pixels[top : top + _ROWS] * np.uint32(255)
        wide += np.uint32(32895)
        scaled[top : top + _ROWS] = wide >> 16  # = (value + 128) // 257, for every value of 16 bits
    return scaled


def luma(rgb: Samples) -> Samples:
    """(H, W, 3) to (H, W, 1): Rec. 601, rounded."""
    grey = np.empty((*rgb.shape[:2], 1), rgb.dtype)
    for top in range(0, rgb.shape[0], _ROWS):
        rows = rgb[top : top + _ROWS]
        total = rows[..., 0] * np.uint32(_RED)  # 65535 * 65536 + 32768 still fits into 32 bits
        total += rows[..., 1] * np.uint32(_GREEN)
        total += rows[..., 2] * np.uint32(_BLUE)
        total += np.uint32(32768)
        grey[top : top + _ROWS, :, 0] = total >> 16
    return grey


def pixel_digest(pixels: NDArray[Any]) -> str:
    """sha256 of an image's size and samples (H, W, C), whatever file they were in: 8 bits scaled to 16 are 8 bits."""
    if pixels.dtype == np.uint16 and not (pixels % 257).any():
        pixels = (pixels // 257).astype(np.uint8)
    header = f"{pixels.shape} {pixels.dtype.name}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()
