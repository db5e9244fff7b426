"""The two facts of an EXIF block that matter here, orientation and resolution, and turning pixels upright.

Pillow's EXIF reader warns on damaged blocks; a damaged block says nothing about the pixels, so this one stays silent.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from pipelines.images.image import Samples

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_SHORT, _RATIONAL = 3, 5
_INCH, _CENTIMETRE = 2, 3
SWAPS_SIDES = frozenset({5, 6, 7, 8})  # the orientations that exchange width and height


@dataclass(frozen=True, slots=True)
class Exif:
    """Orientation (1 to 8) and resolution (dots per inch)."""

    orientation: int = 1
    dpi: tuple[float, float] | None = None


def read_exif(block: bytes | None) -> Exif:
    """Read an EXIF block, with or without its "Exif" preamble; what is absent or damaged takes its default.

    >>> read_exif(b"damaged")
    Exif(orientation=1, dpi=None)
    """
    if not block:
        return Exif()
    block = block.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return Exif()
    found: dict[int, float] = {}
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for entry in range(entries):
            offset = start + 2 + 12 * entry
            tag, kind = struct.unpack_from(order + "HH", block, offset)
            if kind == _SHORT:
                (found[tag],) = struct.unpack_from(order + "H", block, offset + 8)
            elif kind == _RATIONAL:
                (place,) = struct.unpack_from(order + "I", block, offset + 8)
                above, below = struct.unpack_from(order + "II", block, place)
                found[tag] = above / below if below else 0.0
    except struct.error:
        pass  # the entries before the damage still count
    orientation = int(found.get(_ORIENTATION, 1))
    dpi = dots_per_inch(
        found.get(_X_RESOLUTION, 0.0), found.get(_Y_RESOLUTION, 0.0), int(found.get(_RESOLUTION_UNIT, _INCH))
    )
    return Exif(orientation if 1 <= orientation <= 8 else 1, dpi)


def dots_per_inch(x: float, y: float, unit: int) -> tuple[float, float] | None:
    """Resolution from EXIF's and TIFF's numbers (unit 2: per inch, 3: per centimetre); None where it means nothing."""
    scale = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(unit, 0.0)
    dpi = (x * scale, y * scale)
    return dpi if all(math.isfinite(value) and value > 0 for value in dpi) else None


def upright(samples: Samples, orientation: int) -> Samples:
    """Apply an EXIF orientation.

    Args:
        samples: (H, W, C).
        orientation: 1 (upright already) to 8; 5 to 8 exchange width and height.

    Returns:
        A contiguous array; the given one where there is nothing to do.

    Source:
        Exif 2.32, tag 274.
    """
    turned = samples
    if orientation in SWAPS_SIDES:
        turned = turned.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        turned = turned[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        turned = turned[::-1]
    return np.ascontiguousarray(turned)
