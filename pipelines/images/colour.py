"""Samples to the two layouts that the rest knows, grey and RGB at the full range of their dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.samples import Samples

_ICC_SPACE = {1: b"GRAY", 3: b"RGB "}  # channels -> data colour space in the profile's header (ICC.1, 7.2.6)
MAX_ICC_BYTES = 16 * 2**20  # larger ones are not worth their memory


def to_full_range(samples: NDArray[np.unsignedinteger[Any] | np.bool_], largest: int) -> Samples:
    """Scale stored values 0..largest to the full range of uint8 (largest up to 255) or uint16, rounded.

    >>> to_full_range(np.array([0, 8, 15], np.uint8), 15)
    array([  0, 136, 255], dtype=uint8)
    """
    kind: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint8 if largest <= 255 else np.uint16)
    top = int(np.iinfo(kind).max)
    if largest == top:
        return samples.astype(kind, copy=False)
    # Values above the stated maximum are damage: they become the maximum.
    stored = np.minimum(np.arange(65536 if samples.dtype.itemsize > 1 else 256, dtype=np.int64), largest)
    table = ((stored * top + largest // 2) // largest).astype(kind)
    return table[samples.astype(np.uint8) if samples.dtype == np.bool_ else samples]


def from_palette(palette: NDArray[np.uint8], indices: NDArray[np.unsignedinteger[Any]]) -> Samples:
    """Look pixels up in a palette: grey where all its entries are grey, else RGB.

    Args:
        palette: (N, 3).
        indices: (H, W), below N.

    Returns:
        (H, W, 1) or (H, W, 3).

    Raises:
        IndexError: A pixel is of no entry.
    """
    entries = palette[:, :1] if is_grey(palette) else palette
    return entries[indices.astype(np.intp)]


def is_grey(palette: NDArray[np.uint8]) -> bool:
    """Return whether all entries of a palette (N, 3) are grey."""
    return bool((palette == palette[:, :1]).all())


def usable_profile(icc: bytes | None, channels: int) -> bytes | None:
    """The ICC profile if it describes pixels of this many channels (1 grey, 3 RGB), else None."""
    if icc is None or not 128 <= len(icc) <= MAX_ICC_BYTES or icc[36:40] != b"acsp":
        return None
    return icc if icc[16:20] == _ICC_SPACE[channels] else None


def cmyk_to_rgb(cmyk: Samples, icc: bytes | None) -> tuple[Samples, str]:
    """Convert ink amounts to RGB, through the embedded profile where there is one that works.

    Args:
        cmyk: (H, W, 4), 0 = no ink.
        icc: The file's ICC profile.

    Returns:
        sRGB (H, W, 3) in the same dtype, and a note that says how it was converted.
    """
    if icc is not None and len(icc) <= MAX_ICC_BYTES:
        import imagecodecs

        try:
            rgb = imagecodecs.cms_transform(
                np.ascontiguousarray(cmyk),
                icc,
                imagecodecs.cms_profile("srgb"),
                colorspace="cmyk",
                outcolorspace="rgb",
                intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
                flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION,
            )
        except imagecodecs.CmsError:
            pass  # a damaged profile, or one of another colour space: as good as none
        else:
            return rgb, "CMYK converted to RGB with the embedded colour profile"
    top = int(np.iinfo(cmyk.dtype).max)
    # Wide enough for top * top + top // 2.
    wide: np.dtype[np.unsignedinteger[Any]] = np.dtype(np.uint16 if cmyk.dtype == np.uint8 else np.uint32)
    light = top - cmyk[..., 3].astype(wide)
    naive = np.empty((*cmyk.shape[:2], 3), cmyk.dtype)
    for channel in range(3):
        naive[..., channel] = ((top - cmyk[..., channel].astype(wide)) * light + top // 2) // top
    return naive, "CMYK converted to RGB without a colour profile: colours are approximate"


def unpremultiply(samples: Samples) -> Samples:
    """Undo the multiplication of the colour by the alpha in the last channel, rounded; colour under alpha 0 stays."""
    top = int(np.iinfo(samples.dtype).max)
    alpha = samples[..., -1].astype(np.uint32)
    divisor = np.maximum(alpha, 1)
    straight = samples.copy()
    for channel in range(samples.shape[-1] - 1):
        value = np.minimum((samples[..., channel].astype(np.uint64) * top + divisor // 2) // divisor, top)
        straight[..., channel] = np.where(alpha > 0, value, samples[..., channel])
    return straight
