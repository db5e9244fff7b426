"""Bits that 16-bit images really fill: cameras of 10 and 12 bits write files of 16, and nothing in them says so."""

from __future__ import annotations

import numpy as np

from pipelines.images.image import Image
from pipelines.images.samples import Samples

ALL = 16
NARROW = (8, 10, 12)  # what a 16-bit file may plainly fill instead; a dark picture of 16 bits may look like one of 14
_ROWS = 64  # converted at a time, so that the wide values stay in the cache


def narrowest(largest: int) -> int:
    """Return the bits that 16-bit images fill whose largest value is `largest`: 8, 10, 12, or all 16.

    >>> narrowest(1000), narrowest(4095), narrowest(4096)
    (10, 12, 16)
    """
    return next((bits for bits in NARROW if largest < 1 << bits), ALL)


def is_deep(image: Image) -> bool:
    """Return whether the file has 16 bits: others were brought to their full range by what they state."""
    return image.bit_depth == ALL and image.pixels.dtype == np.uint16


def bits_of(image: Image, bits: int) -> int:
    """Return the bits that an image is read with, where its folder's images fill `bits`: more if it has larger values.

    >>> dark = Image(np.full((2, 2, 1), 700, np.uint16), None, 16, "", None, None, None)
    >>> bits_of(dark, 12), bits_of(dark, 16), bits_of(dark, 8)
    (12, 16, 10)
    """
    if bits == ALL or not is_deep(image):
        return ALL
    largest = int(image.pixels.max())
    return bits if largest < 1 << bits else narrowest(largest)


def stretch(pixels: Samples, bits: int) -> Samples:
    """Bring values of fewer bits to all 16, rounded: `shrink` gives the same values back."""
    return pixels if bits == ALL else _scaled(pixels, (1 << bits) - 1, (1 << ALL) - 1)


def shrink(pixels: Samples, bits: int) -> Samples:
    """Bring values of all 16 bits to the range of fewer, rounded."""
    return pixels if bits == ALL else _scaled(pixels, (1 << ALL) - 1, (1 << bits) - 1)


def _scaled(pixels: Samples, largest: int, new: int) -> Samples:
    scaled = np.empty_like(pixels)
    for top in range(0, pixels.shape[0], _ROWS):
        wide = pixels[top : top + _ROWS] * np.uint32(new)  # 65535 * 4095 and half of the other still fit into 32 bits
        wide += np.uint32(largest // 2)
        scaled[top : top + _ROWS] = wide // np.uint32(largest)
    return scaled
