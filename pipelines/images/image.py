"""What a decoder hands over (`Raster`), and what everybody else sees (`Image`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

# Called by every decoder with (width, height) before it decodes the first pixel; raises ImageError where that is too
# much.
Admit: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """One decoded picture as the file stores it: upright only once `orientation` has been applied.

    Attributes:
        samples: (H, W) or (H, W, C) with C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha; the full range of its dtype.
        bit_depth: Bits per sample in the file.
        icc: Embedded ICC profile, whatever it describes.
        dpi: (horizontal, vertical) resolution in dots per inch.
        orientation: EXIF orientation, 1 to 8.
        notes: What a person should know about the decoding.
    """

    samples: Samples
    bit_depth: int
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One image file, decoded and upright.

    Attributes:
        pixels: (H, W, C), C = 1 grey or 3 RGB, using the full range of uint8 or uint16.
        alpha: (H, W, 1) in the dtype of `pixels`, 0 = transparent; None where the file has no alpha.
        bit_depth: Bits per sample in the file: 1, 8 or 16, rarely 2, 4 or 9 to 15 (those are scaled to 8 or 16).
        sha256: Digest of the file's bytes, hexadecimal.
        icc: ICC profile that describes `pixels`; None for a profile of another colour space.
        dpi: (horizontal, vertical) resolution in dots per inch, of the upright image.
        note: What a person should know, such as "animated GIF: first of 12 frames".
    """

    pixels: Samples
    alpha: Samples | None
    bit_depth: int
    sha256: str
    icc: bytes | None
    dpi: tuple[float, float] | None
    note: str | None
