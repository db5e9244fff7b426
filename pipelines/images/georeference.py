"""Where on Earth the pixels of a GeoTIFF lie, before and after they become more."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from pipelines.images.ifd import ASCII, DOUBLE, SHORT, Directory, Entry

_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _DOUBLES, _TEXTS = 34735, 34736, 34737
_RATIONAL_POLYNOMIAL = 50844
_KINDS = {_SCALE: DOUBLE, _TIE_POINTS: DOUBLE, _TRANSFORMATION: DOUBLE, _KEYS: SHORT, _DOUBLES: DOUBLE, _TEXTS: ASCII}
_KINDS |= {_RATIONAL_POLYNOMIAL: DOUBLE}
TAGS = frozenset(_KINDS)
_RASTER_TYPE, _IS_POINT = 1025, 2  # a key, and its value where coordinates are those of the middles of pixels
_LINE_OFFSET, _COLUMN_OFFSET, _LINE_SCALE, _COLUMN_SCALE, _COEFFICIENTS = 2, 3, 7, 8, 92


@dataclass(frozen=True, slots=True)
class Georeference:
    """The tags of a GeoTIFF, little-endian, of a picture that is stored upright."""

    tags: Directory

    def enlarged(self, scale: int) -> Georeference:
        """Return the tags of a picture with `scale` times as many pixels along each side, of the same ground.

        Source:
            OGC GeoTIFF 1.1, annex B.6: raster space begins at the corner of the first pixel, or at its middle.
        """
        if scale == 1:
            return self
        numbers = {tag: list(self.tags[tag].numbers("<")) for tag in self.tags if _KINDS[tag] == DOUBLE}
        shift = (scale - 1) / 2 if self._is_of_middles else 0.0
        if sizes := numbers.get(_SCALE):
            sizes[:2] = [size / scale for size in sizes[:2]]
        points = numbers.get(_TIE_POINTS, [])
        for start in range(0, len(points) - 5, 6):
            points[start : start + 2] = [place * scale + shift for place in points[start : start + 2]]
        if len(matrix := numbers.get(_TRANSFORMATION, [])) == 16:
            for row in range(0, 16, 4):
                matrix[row] /= scale
                matrix[row + 1] /= scale
                matrix[row + 3] -= shift * (matrix[row] + matrix[row + 1])
        if len(polynomial := numbers.get(_RATIONAL_POLYNOMIAL, [])) == _COEFFICIENTS:
            for index in (_LINE_OFFSET, _COLUMN_OFFSET):  # of the middles of pixels, always
                polynomial[index] = polynomial[index] * scale + (scale - 1) / 2
            for index in (_LINE_SCALE, _COLUMN_SCALE):
                polynomial[index] *= scale
        return replace(self, tags=self.tags | {tag: _doubles(values) for tag, values in numbers.items()})

    @property
    def _is_of_middles(self) -> bool:
        keys = self.tags[_KEYS].numbers("<") if _KEYS in self.tags else ()
        entries = [keys[start : start + 4] for start in range(4, len(keys) - 3, 4)]
        return any(key == _RASTER_TYPE and value == _IS_POINT for key, _, _, value in entries)


def georeference_of(directory: Directory) -> Georeference | None:
    """Return the georeference among the tags of a page, little-endian; None where there is none."""
    found = {tag: directory[tag] for tag in TAGS if tag in directory and directory[tag].kind == _KINDS[tag]}
    placed = found.keys() & {_SCALE, _TIE_POINTS, _TRANSFORMATION, _RATIONAL_POLYNOMIAL}
    return Georeference(found) if placed else None


def _doubles(values: list[float]) -> Entry:
    return Entry(DOUBLE, len(values), struct.pack(f"<{len(values)}d", *values))
