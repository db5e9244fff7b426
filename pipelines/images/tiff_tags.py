"""What the tags of a TIFF page state beside its pixels: resolution, orientation, colours, pixel size, georeference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipelines.images.colour_space import SRGB, ColourSpace, is_possible
from pipelines.images.exif import DESCRIPTION, RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, read_tags
from pipelines.images.georeference import TAGS as GEOGRAPHIC
from pipelines.images.georeference import georeference_of
from pipelines.images.ifd import Directory, layout_of, little_endian, read_directory
from pipelines.images.tags import PixelSize, Tags, imagej_pixel_size, ome_pixel_size

_TRANSFER, _WHITE, _PRIMARIES, _NO_DATA = 301, 318, 319, 42113
_TAGS = frozenset({DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, _TRANSFER, _WHITE, _PRIMARIES, _NO_DATA})
_ENTRIES = 1024  # of a curve, at most
_MOST_BYTES = 2**19  # of one tag: TransferFunction has three tables of 65,536 values
# Descriptions by programs: they state sizes and counts that are no longer true.
_STALE = ("ImageJ=", "<?xml", "<OME", '{"', "shape=", "Aperio ")


@dataclass(frozen=True, slots=True)
class PageTags:
    """Dots per inch, EXIF orientation, the colour space that is stated without a profile, and what is kept."""

    dpi: tuple[float, float] | None
    orientation: int
    space: ColourSpace | None
    tags: Tags


def describe_page(data: bytes, offset: int) -> PageTags:
    """Read the tags of the page whose directory begins at an offset."""
    layout = layout_of(data)
    if layout is None:
        return PageTags(None, 1, None, Tags())
    exif = read_tags(data, layout, offset)
    entries, _ = read_directory(data, layout, offset, _TAGS | GEOGRAPHIC, most_bytes=_MOST_BYTES)
    directory = {tag: little_endian(entry, layout.order) for tag, entry in entries.items()}
    kept, pixel = exif.kept, _pixel_size(directory)
    description = directory[DESCRIPTION].text if DESCRIPTION in directory else ""
    if description.lstrip().startswith(_STALE):
        kept = replace(kept, main={tag: entry for tag, entry in kept.main.items() if tag != DESCRIPTION})
    notes: tuple[str, ...] = ()
    if _NO_DATA in directory:
        value = directory[_NO_DATA].text.strip()
        notes = (f"GDAL's value for pixels without data ({value[:20]}) left out: the result's pixels are new ones",)
    dpi = pixel.dpi if pixel else exif.dpi  # ImageJ's resolution is in units of its own
    tags = Tags(kept, georeference_of(directory), pixel, notes)
    return PageTags(dpi, exif.orientation, _space(directory) or exif.space, tags)


def _pixel_size(directory: Directory) -> PixelSize | None:
    text = directory[DESCRIPTION].text if DESCRIPTION in directory else ""
    if text.startswith("ImageJ="):
        across, down = (_numbers(directory, tag) for tag in (X_RESOLUTION, Y_RESOLUTION))
        return imagej_pixel_size(text, (across[0], down[0]) if across and down else None)
    return ome_pixel_size(text) if text.rstrip().endswith("OME>") else None


def _space(directory: Directory) -> ColourSpace | None:
    """Return the colour space of TransferFunction, WhitePoint and PrimaryChromaticities.

    Source:
        TIFF 6.0, section 20 (RGB image colorimetry).
    """
    found, sources = SRGB, []
    white, primaries = _numbers(directory, _WHITE), _numbers(directory, _PRIMARIES)
    if len(primaries) == 6 and is_possible(primaries, white if len(white) == 2 else SRGB.white):
        red_x, red_y, green_x, green_y, blue_x, blue_y = primaries
        found, sources = replace(found, primaries=(red_x, red_y, green_x, green_y, blue_x, blue_y)), ["chromaticities"]
    if len(white) == 2 and is_possible(found.primaries, white):
        found, sources = replace(found, white=(white[0], white[1])), [*sources, "white point"]
    light = np.array(_numbers(directory, _TRANSFER)) / 65535
    if len(light) >= 2:
        tables = light.reshape(3, -1) if len(light) % 3 == 0 else light[None]  # 2 to the power of bits: not by 3
        few = np.linspace(0, tables.shape[1] - 1, min(tables.shape[1], _ENTRIES)).round().astype(np.intp)
        curve = tuple(tuple(table.tolist()) for table in tables[:, few])
        found, sources = replace(found, curve=curve), [*sources, "transfer function"]
    return replace(found, source=f"TIFF tags ({', '.join(sources)})") if sources else None


def _numbers(directory: Directory, tag: int) -> tuple[float, ...]:
    return directory[tag].numbers("<") if tag in directory else ()
