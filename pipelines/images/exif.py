"""EXIF blocks: what of them turns and places pixels, what stays true of a result, and turning pixels upright.

Pillow's EXIF reader warns on damaged blocks; a damaged block says nothing about the pixels, so this one stays silent.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.images.colour_space import ADOBE_RGB, SRGB, ColourSpace
from pipelines.images.ifd import (
    ASCII,
    LONG,
    RATIONAL,
    SHORT,
    Directory,
    Entry,
    Layout,
    encode_directory,
    layout_of,
    little_endian,
    read_directory,
)
from pipelines.images.samples import Samples

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
PHOTO, GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # directories inside
_COLOUR_SPACE, _PIXEL_WIDTH, _PIXEL_HEIGHT, _INDEX = 0xA001, 0xA002, 0xA003, 0x0001
_STATED = {1: SRGB, 2: ADOBE_RGB}  # by ColorSpace; 2 is not of the standard, and written
_UNCALIBRATED, _ADOBE_INDEX = 0xFFFF, "R03"
_INCH, _CENTIMETRE = 2, 3
SWAPS_SIDES = frozenset({5, 6, 7, 8})  # the orientations that exchange width and height

# Of the main directory: names, makers, dates and words. All else there is about the pixels as they were stored.
DESCRIPTION, SOFTWARE, DATE = 0x010E, 0x0131, 0x0132
_KEPT = frozenset({0x010D, DESCRIPTION, 0x010F, 0x0110, 0x011D, SOFTWARE, DATE, 0x013B, 0x013C, 0x4746, 0x8298})
_KEPT |= frozenset(range(0x9C9B, 0x9CA0))  # the same as Windows writes it
# Of the directory of the photograph: places and sizes in pixels, how they are stored, the colour space (which is
# written anew), other files, the maker's note (whose offsets point into the old file), and an identity of another.
_LEFT_OUT = frozenset(
    {
        0x9101, 0x9102, 0x9214, 0x927C, 0xA001, 0xA002, 0xA003, 0xA004, 0xA005, 0xA20C, 0xA20E, 0xA20F, 0xA210, 0xA214,
        0xA302, 0xA40B, 0xA420, 0xA500, 0x828D, 0x828E, 0xEA1C, 0xEA1D,
    }
)  # fmt: skip
_HEADER = 8  # bytes of a block before its first directory
_MOST_BYTES = 32_768  # of one entry that is kept: JPEG has room for 65,533 in all
_EXACT, _MOST = 10_000, 2**32 - 1  # parts of a dot per inch that a resolution is written in, and the most of them


@dataclass(frozen=True, slots=True)
class Kept:
    """What of an EXIF block, or of the tags of a TIFF file, stays true of a result. Little-endian."""

    main: Directory = field(default_factory=dict)
    photo: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.main or self.photo or self.gps)

    def without_gps(self) -> Kept:
        """Leave out where the photograph was taken."""
        return replace(self, gps={})

    def with_software(self, name: str) -> Kept:
        """State what made the result; what made the image follows."""
        known = self.main[SOFTWARE].text if SOFTWARE in self.main else ""
        text = f"{name}; before that: {known}" if known else name
        data = text.encode("ascii", "replace") + b"\0"
        return replace(self, main=self.main | {SOFTWARE: Entry(ASCII, len(data), data)})


@dataclass(frozen=True, slots=True)
class Exif:
    """Orientation (1 to 8), resolution (dots per inch), colour space, and what stays true of a result."""

    orientation: int = 1
    dpi: tuple[float, float] | None = None
    space: ColourSpace | None = None
    kept: Kept = field(default_factory=Kept)


def read_exif(block: bytes | None) -> Exif:
    """Read an EXIF block, with or without its "Exif" preamble; what is absent or damaged takes its default.

    >>> read_exif(b"damaged") == Exif()
    True
    """
    block = (block or b"").removeprefix(b"Exif\x00\x00")
    layout = layout_of(block)
    return Exif() if layout is None else read_tags(block, layout, layout.first)


def read_tags(data: bytes, layout: Layout, offset: int) -> Exif:
    """Read the tags of a directory of a TIFF file as those of an EXIF block."""
    main = _read(data, layout, offset)
    photo = _read(data, layout, _number(main, PHOTO))
    inside = _read(data, layout, _number(photo, _INTEROPERABILITY))
    gps = _read(data, layout, _number(main, GPS))
    kept = Kept(
        {tag: entry for tag, entry in main.items() if tag in _KEPT and _may_be_kept(entry)},
        {tag: entry for tag, entry in photo.items() if tag not in _LEFT_OUT and _may_be_kept(entry)},
        {tag: entry for tag, entry in gps.items() if _may_be_kept(entry)},
    )
    orientation = int(_number(main, ORIENTATION, 1))
    dpi = dots_per_inch(
        _number(main, X_RESOLUTION), _number(main, Y_RESOLUTION), int(_number(main, RESOLUTION_UNIT, _INCH))
    )
    return Exif(orientation if 1 <= orientation <= 8 else 1, dpi, _space(photo, inside), kept)


def encode_exif(kept: Kept, size: tuple[int, int], dpi: tuple[float, float] | None, *, is_srgb: bool) -> bytes:
    """Make the EXIF block of a result, without its preamble; empty where nothing is kept.

    Args:
        kept: Of the file that it was made of.
        size: Width and height of the result, which is upright.
        dpi: Its resolution.
        is_srgb: Whether its colours are sRGB; else its colour profile has them.
    """
    if not kept:
        return b""
    main = kept.main | {ORIENTATION: _shorts(1)}
    if dpi is not None:
        main |= {X_RESOLUTION: _fraction(dpi[0]), Y_RESOLUTION: _fraction(dpi[1]), RESOLUTION_UNIT: _shorts(_INCH)}
    header = b"II*\x00" + struct.pack("<I", _HEADER)
    start = _HEADER + len(encode_directory("<", _pointing(main, kept), _HEADER))
    blocks = encode_directories(kept, size, is_srgb=is_srgb, start=start)
    main = _pointing(main, kept, {tag: place for tag, place, _ in blocks})
    return header + encode_directory("<", main, _HEADER) + b"".join(block for *_, block in blocks)


def encode_directories(
    kept: Kept, size: tuple[int, int], *, is_srgb: bool, start: int, big: bool = False
) -> list[tuple[int, int, bytes]]:
    """Write the directories inside: the tag that points to each, where it begins, and its bytes, in their order.

    Args:
        kept: What is written.
        size: Width and height of the result.
        is_srgb: As for `encode_exif`.
        start: Where the first of them will begin.
        big: Whether the file is a BigTIFF.
    """
    width, height = (Entry(LONG, 1, struct.pack("<I", length)) for length in size)
    stated = _shorts(1 if is_srgb else _UNCALIBRATED)
    own = {_COLOUR_SPACE: stated, _PIXEL_WIDTH: width, _PIXEL_HEIGHT: height}
    blocks = []
    for tag, directory in ((PHOTO, kept.photo and kept.photo | own), (GPS, kept.gps)):
        if directory:
            block = encode_directory("<", directory, start, big=big)
            blocks.append((tag, start, block))
            start += len(block)
    return blocks


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


def _read(data: bytes, layout: Layout, offset: float) -> Directory:
    if not 0 < offset < len(data):
        return {}
    try:
        directory, _ = read_directory(data, layout, int(offset))
    except struct.error:
        return {}
    return {tag: little_endian(entry, layout.order) for tag, entry in directory.items()}


def _number(directory: Directory, tag: int, absent: float = 0) -> float:
    return next(iter(directory[tag].numbers("<")), absent) if tag in directory else absent


def _space(photo: Directory, inside: Directory) -> ColourSpace | None:
    stated = int(_number(photo, _COLOUR_SPACE))
    if stated == _UNCALIBRATED and _INDEX in inside and inside[_INDEX].text == _ADOBE_INDEX:
        return ADOBE_RGB
    return _STATED.get(stated)


def _may_be_kept(entry: Entry) -> bool:
    return entry.kind <= 12 and 0 < len(entry.data) <= _MOST_BYTES


def _pointing(main: Directory, kept: Kept, pointers: dict[int, int] | None = None) -> Directory:
    inside = [tag for tag, directory in ((PHOTO, kept.photo), (GPS, kept.gps)) if directory]
    return main | {tag: Entry(LONG, 1, struct.pack("<I", (pointers or {}).get(tag, 0))) for tag in inside}


def _shorts(value: int) -> Entry:
    return Entry(SHORT, 1, struct.pack("<H", value))


def _fraction(value: float) -> Entry:
    below = _EXACT if value * _EXACT < _MOST else 1
    return Entry(RATIONAL, 1, struct.pack("<II", min(round(value * below), _MOST), below))
