"""Colour spaces that files state without a profile, as ICC profiles: the one statement that every format carries.

A number in a file is a colour only with the curve and the primaries that it is meant for. PNG has chunks for them, TIFF
and EXIF have tags, BMP and JPEG 2000 have fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.colour import usable_profile

XY = tuple[float, float]
Primaries = tuple[float, float, float, float, float, float]  # x and y of red, green and blue

_D65: XY = (0.3127, 0.3290)
_SRGB: Primaries = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ENTRIES = 1024  # of a curve: straight lines between them are off by less than a level of 8 bits
_NEAR = 0.002  # of chromaticities, and of gammas: chunks hold five decimals, and programs round differently
_SRGB_GAMMA = 2.2  # that stands for the curve of sRGB where a file can state a power only
_DATE = slice(24, 36)  # of an ICC profile's header
_FIXED_DATE = bytes.fromhex("07d0 0001 0001 0000 0000 0000")  # the same picture gives the same bytes every day

# Of ITU-T H.273: primaries and white by ColourPrimaries; TransferCharacteristics that are a curve from 0 to 1.
_CODED_PRIMARIES: dict[int, tuple[Primaries, XY]] = {
    1: (_SRGB, _D65),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65),
    6: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), _D65),
    7: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), _D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), _D65),
}
_CODED_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_UNSPECIFIED = 2
_CODED_VIDEO, _CODED_SRGB = frozenset({1, 6, 14, 15}), 13


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """Colours as numbers.

    Attributes:
        primaries: Chromaticities of red, green and blue.
        white: Chromaticity of white.
        curve: From numbers to light: a power, or one or three tables of values from 0 to 1; None for that of sRGB.
        source: What stated it, for people: "gAMA and cHRM chunks".
    """

    primaries: Primaries = _SRGB
    white: XY = _D65
    curve: float | tuple[tuple[float, ...], ...] | None = None
    source: str = field(default="", compare=False)

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB, or what programs write for it."""
        alike = np.allclose((*self.primaries, *self.white), (*_SRGB, *_D65), rtol=0, atol=_NEAR)
        if isinstance(self.curve, tuple):
            return False
        return alike and (self.curve is None or abs(self.curve - _SRGB_GAMMA) < 10 * _NEAR)


SRGB = ColourSpace()
ADOBE_RGB = ColourSpace((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), _D65, 563 / 256, "EXIF (Adobe RGB)")
ROMM_RGB = ColourSpace((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585), 1.8, "JPEG 2000 (ROMM RGB)")


@lru_cache(maxsize=64)
def profile_of(space: ColourSpace, channels: int) -> bytes | None:
    """Make an ICC profile.

    Args:
        space: The colour space.
        channels: 1 (grey: white and the curve count) or 3 (RGB).

    Returns:
        The profile; None where the numbers describe none.
    """
    import imagecodecs

    if space.is_srgb:
        space = SRGB
    options: dict[str, Any] = {"whitepoint": space.white}
    if isinstance(space.curve, float):
        options["gamma"] = space.curve
    else:
        options["transferfunction"] = _table(space.curve, channels)
    if channels == 3:
        options["primaries"] = space.primaries
    try:
        if space.is_srgb and channels == 3:
            made = imagecodecs.cms_profile("srgb")  # the same with a tenth of the bytes
        else:
            made = imagecodecs.cms_profile("gray" if channels == 1 else "rgb", **options)
    except (imagecodecs.CmsError, ValueError):
        return None  # such as primaries on one line
    profile = bytes(made)
    return profile[: _DATE.start] + _FIXED_DATE + profile[_DATE.stop :]


def is_plain_srgb(icc: bytes | None, channels: int) -> bool:
    """Return whether a profile is the one that is made here of "sRGB", and says nothing else."""
    return icc is not None and icc == profile_of(SRGB, channels)


def profile_for(icc: bytes | None, channels: int) -> bytes | None:
    """Return the profile for a result of other channels: sRGB has one for grey and one for RGB; others do not."""
    if is_plain_srgb(icc, 4 - channels):
        return profile_of(SRGB, channels)
    return usable_profile(icc, channels)


def coded_space(code: Sequence[int]) -> ColourSpace | None:
    """Return the colour space of code points (primaries, transfer, matrix, full range) as PNG's cICP has them.

    None where no profile describes it: high dynamic range, video levels, numbers that nobody uses.

    Source:
        ITU-T H.273, tables 2 and 3.
    """
    if len(code) != 4 or code[2] != 0 or code[3] != 1 or code[0] not in _CODED_PRIMARIES:
        return None
    primaries, white = _CODED_PRIMARIES[code[0]]
    if code[1] == _CODED_SRGB:
        return ColourSpace(primaries, white, None, "cICP chunk")
    if code[1] in _CODED_GAMMAS:
        return ColourSpace(primaries, white, _CODED_GAMMAS[code[1]], "cICP chunk")
    return ColourSpace(primaries, white, (_video_curve(),), "cICP chunk") if code[1] in _CODED_VIDEO else None


def stated_code(code: Sequence[int] | None, source: str) -> tuple[ColourSpace | None, bytes | None]:
    """Return the colour space of RGB pixels whose primaries and transfer a file states as code points.

    Args:
        code: Primaries and transfer, and what else there is; None where nothing is stated.
        source: What states it, for people.

    Returns:
        The colour space; where no profile describes it, the code of four bytes that PNG can hold instead.
    """
    if code is None or _UNSPECIFIED in code[:2] or max(code[:2]) > 255:
        return None, None
    whole = (code[0], code[1], 0, 1)
    space = coded_space(whole)
    return (None, bytes(whole)) if space is None else (replace(space, source=source), None)


def is_possible(primaries: Sequence[float], white: Sequence[float]) -> bool:
    """Return whether chromaticities can be those of lights: x and y above 0, and their sum at most 1."""
    values = [*primaries, *white]
    pairs = list(zip(values[::2], values[1::2], strict=True))
    return len(pairs) == 4 and all(0 <= x <= 1 and 0 < y <= 1 and x + y <= 1.001 for x, y in pairs)


def _table(curve: float | tuple[tuple[float, ...], ...] | None, channels: int) -> NDArray[np.uint16]:
    if curve is None:
        value = np.linspace(0, 1, _ENTRIES)
        rows = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)[None]
    else:
        rows = np.asarray(curve, np.float64)[:channels]
    table: NDArray[np.uint16] = np.rint(np.clip(rows, 0, 1) * 65535).astype(np.uint16)
    return table[0] if len(table) == 1 else table


def _video_curve() -> tuple[float, ...]:
    """Light of the values of BT.709."""
    value = np.linspace(0, 1, _ENTRIES)
    light = np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))
    return tuple(light.tolist())
