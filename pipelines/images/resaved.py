"""Images saved again: what a copy that went through a mail, a phone or an archive is like.

Belongs to the scoring side: numpy and Pillow only.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 90  # of the JPEG file
SIDE, ALIKE = 16, 0.95


def saved_again(pixels: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """The pixels (H, W, C) of 8 or 16 bits, one level of 255 brighter, as they come back from a JPEG file.

    Pixels of 16 bits are stretched to their own range for it: many cameras fill ten or twelve of the bits.
    """
    deep = pixels.dtype == np.uint16
    low, span = (int(pixels.min()), max(1, int(np.ptp(pixels)))) if deep else (0, 255)
    eight = np.rint((pixels.astype(np.float32) - low) * (255 / span)).astype(np.uint8) if deep else pixels
    brighter = np.minimum(eight.astype(np.uint16) + 1, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(brighter[:, :, 0] if pixels.shape[2] == 1 else brighter).save(buffer, "JPEG", quality=QUALITY)
    with Image.open(buffer) as image:
        back = np.asarray(image).reshape(pixels.shape)
    return np.rint(back * (span / 255) + low).astype(np.uint16) if deep else back


def coarse(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """What an image (H, W, C) shows in 16 by 16 places of grey, at no brightness and contrast of its own: (256,)."""
    grey = pixels.astype(np.float32).mean(axis=2)
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    spread = float(small.std())
    return (small - small.mean()) / spread if spread > 0 else np.zeros_like(small)


def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two such pictures show the same, but for light: their correlation is at least 0.95, or neither shows any.

    >>> grid = np.arange(64.0).reshape(8, 8, 1)
    >>> alike(coarse(grid), coarse(3 * grid + 5)), alike(coarse(grid), coarse(grid[::-1]))
    (True, False)
    """
    if not one.any() or not other.any():
        return not one.any() and not other.any()
    return float((one * other).mean()) >= ALIKE
