"""What a file states beside pixels, colours and resolution, and what of it is true of a result."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.images.exif import SWAPS_SIDES, Kept, dots_per_inch
from pipelines.images.georeference import Georeference

_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")  # of OME-XML, the first image's
_ATTRIBUTE = re.compile(r"""\b(PhysicalSize[XY](?:Unit)?)\s*=\s*["']([^"']*)["']""")
_INCH = 0.0254  # metres
_SMALLEST = 1e-9  # units of a pixel: the fractions of TIFF hold the resolution of a quarter of that
_METRES = {
    "pm": 1e-12, "\u00c5": 1e-10, "angstrom": 1e-10, "nm": 1e-9, "um": 1e-6, "\u00b5m": 1e-6, "\u03bcm": 1e-6,
    "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "mm": 1e-3, "cm": 1e-2, "dm": 1e-1, "m": 1.0, "meter": 1.0,
    "km": 1e3, "inch": _INCH, "in": _INCH,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PixelSize:
    """How large a pixel is in the world, as microscopes state it.

    Attributes:
        x: Width, in units.
        y: Height, in units.
        unit: As the file has it: "nm", "micron".
        stated: Where: in OME-XML, or in ImageJ's description.
    """

    x: float
    y: float
    unit: str
    stated: Literal["OME", "ImageJ"]

    @property
    def dpi(self) -> tuple[float, float] | None:
        """The resolution in dots per inch; None where the unit is no known length."""
        metres = _METRES.get(self.unit, 0.0)
        return dots_per_inch(_INCH / (self.x * metres), _INCH / (self.y * metres), 2) if metres else None


@dataclass(frozen=True, slots=True)
class Tags:
    """What is kept: of EXIF, where on Earth, how large a pixel; what had to be left out; and what made a result."""

    exif: Kept = field(default_factory=Kept)
    place: Georeference | None = None
    pixel: PixelSize | None = None
    notes: tuple[str, ...] = ()
    software: str | None = None

    def turned(self, orientation: int) -> Tags:
        """Return the tags of the picture after its EXIF orientation is applied."""
        turned = self
        if orientation != 1 and self.place is not None:
            note = "georeference left out: the picture was turned upright"
            turned = replace(turned, place=None, notes=(*self.notes, note))
        if orientation in SWAPS_SIDES and self.pixel is not None:
            turned = replace(turned, pixel=replace(self.pixel, x=self.pixel.y, y=self.pixel.x))
        return turned

    def of_result(self, scale: int, *, gps: bool = True, software: str | None = None) -> Tags:
        """Return the tags of a result.

        Args:
            scale: How many times as many pixels it has along each side.
            gps: Whether it states where the photograph was taken.
            software: What made it, in words; None: what the file states of the image.
        """
        pixel = None if self.pixel is None else replace(self.pixel, x=self.pixel.x / scale, y=self.pixel.y / scale)
        place = None if self.place is None else self.place.enlarged(scale)
        exif = self.exif if gps else self.exif.without_gps()
        if software is not None:
            exif = exif.with_software(software)
        return replace(self, exif=exif, place=place, pixel=pixel, software=software)


def ome_pixel_size(description: str) -> PixelSize | None:
    """Read the pixel size out of OME-XML; None where there is none.

    >>> ome_pixel_size('<OME><Image><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></Image></OME>')
    PixelSize(x=0.5, y=0.5, unit='µm', stated='OME')
    """
    found = _PIXELS.search(description)
    stated = dict(_ATTRIBUTE.findall(found[1])) if found else {}
    unit = stated.get("PhysicalSizeXUnit", "\u00b5m")
    if unit != stated.get("PhysicalSizeYUnit", "\u00b5m"):
        return None
    return _checked(stated.get("PhysicalSizeX", ""), stated.get("PhysicalSizeY", ""), unit, "OME")


def imagej_pixel_size(description: str, resolution: tuple[float, float] | None) -> PixelSize | None:
    """Read the pixel size out of ImageJ's description and the resolution in its units; None where there is none."""
    stated = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    if "unit" not in stated or resolution is None or not all(resolution):
        return None
    unit = stated["unit"].replace(r"\u00B5", "\u00b5").replace(r"\u00b5", "\u00b5")
    return _checked(1 / resolution[0], 1 / resolution[1], unit, "ImageJ")


def _checked(x: str | float, y: str | float, unit: str, stated: Literal["OME", "ImageJ"]) -> PixelSize | None:
    try:
        size = PixelSize(float(x), float(y), unit, stated)
    except ValueError:
        return None
    return size if all(_SMALLEST <= each <= 1 / _SMALLEST for each in (size.x, size.y)) else None
