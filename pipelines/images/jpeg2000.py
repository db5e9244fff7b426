"""JPEG 2000, as a bare codestream or in a JP2 container. OpenJPEG through imagecodecs, for more than 8 bits."""

from __future__ import annotations

import struct

from pipelines.errors import ImageError
from pipelines.images.colour import cmyk_to_rgb, to_full_range
from pipelines.images.colour_space import ROMM_RGB, SRGB
from pipelines.images.image import Admit, Raster
from pipelines.images.isobmff import boxes

CODESTREAM = b"\xff\x4f\xff\x51"  # start of codestream, then the image's size
_END = b"\xff\xd9"  # never inside the compressed data
_CHROMA = {((1, 1), (2, 1), (2, 1)), ((1, 1), (2, 2), (2, 2))}  # subsampling that OpenJPEG undoes
_START_OF_TILE, _SHORTEST_PART = 0xFF90, 14  # the marker, and bytes
# Enumerated colour spaces: 16 is sRGB, 17 the same in grey, 18 the same as luma and chroma, which OpenJPEG undoes.
_CMYK = 12
_SPACES = {16: SRGB, 17: SRGB, 18: SRGB, 21: ROMM_RGB}
_FOREIGN = {
    1: "YCbCr", 3: "YCbCr", 4: "YCbCr", 9: "PhotoYCC", 11: "CMY", 13: "YCCK", 14: "CIELAB", 19: "CIEJab", 20: "e-sRGB",
    24: "e-sYCC",
}  # fmt: skip


def decode_jpeg2000(data: bytes, admit: Admit) -> Raster:
    """Decode a JPEG 2000 file of 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha, or CMYK) components.

    Raises:
        ImageError: the file is damaged, or its components are of a kind that is not read.

    Source:
        ISO/IEC 15444-1, A.5.1 (SIZ) and I.5 (boxes); 15444-2, M.11.7.3.1 (more colour spaces).
    """
    icc: bytes | None = None
    space = start = 0
    profiles: list[int] = []  # where their boxes have their name
    if not data.startswith(CODESTREAM):
        for kind, first, last in boxes(data, 0, len(data), clips=True):
            if kind == b"jp2h":
                for inner, begin, end in boxes(data, first, last, clips=True):
                    if inner == b"colr" and data[begin] == 1:
                        space = int.from_bytes(data[begin + 3 : begin + 7], "big")
                    elif inner == b"colr" and data[begin] in {2, 3}:  # restricted profiles, and any
                        icc = data[begin + 3 : end]
                        profiles.append(data.rindex(b"colr", 0, begin))
            elif kind == b"jp2c":
                start = first
                break
    if space in _FOREIGN and icc is None:
        raise ImageError(f"has the colour space {_FOREIGN[space]}: save it as grey, RGB or CMYK")
    if data[start : start + 4] != CODESTREAM or len(data) < start + 46:
        raise ImageError("is damaged: no codestream in the JPEG 2000 file")
    (components,) = struct.unpack_from(">H", data, start + 40)
    admit(*stated_size(data, start))
    depths = {data[start + 42 + 3 * number] for number in range(min(components, 4))}
    if len(depths) != 1 or not 1 <= components <= 4:
        raise ImageError(f"has {components} components of different kinds: grey, RGB and CMYK of one depth are read")
    depth = depths.pop() + 1
    if depth > 16:
        raise ImageError("has signed samples or more than 16 bits: unsigned samples of up to 16 bits are read")

    factors = [tuple(data[at : at + 2]) for at in range(start + 43, start + 43 + 3 * components, 3)]
    if any(each != (1, 1) for each in factors) and tuple(factors[:3]) not in _CHROMA:
        raise ImageError("has components of different sizes: save it with components of one size")
    if data.find(_END, start) < 0:
        raise ImageError(f"is truncated: ends after {len(data):,} bytes without an end-of-codestream marker")

    check_tiles(data, start)

    import imagecodecs

    # OpenJPEG would convert the pixels to sRGB, or print that it cannot: a profile stays with its pixels here.
    for at in profiles:
        data = data[:at] + b"free" + data[at + 4 :]
    samples = to_full_range(imagecodecs.jpeg2k_decode(data), 2**depth - 1)
    if space == _CMYK and components == 4:
        samples, note = cmyk_to_rgb(samples, icc)
        return Raster(samples=samples, bit_depth=depth, notes=(note,))
    return Raster(samples=samples, bit_depth=depth, icc=icc, space=_SPACES.get(space))


def stated_size(data: bytes, start: int) -> tuple[int, int]:
    """Return the width and height that a codestream states.

    Args:
        data: The file.
        start: Where its codestream begins.

    Raises:
        ImageError: It ends before.
    """
    if len(data) < start + 24:
        raise ImageError("is truncated: ends inside the header of its JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def check_tiles(data: bytes, start: int) -> None:
    """Check that each tile is there, with all its parts: OpenJPEG leaves the others black.

    Args:
        data: The file.
        start: Where its codestream begins.

    Raises:
        ImageError: some are missing.

    Source:
        ISO/IEC 15444-1, A.4.2 (SOT) and B.3 (tiles).
    """
    parts, stated = dict[int, int](), dict[int, int]()  # by tile
    try:
        right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", data, start + 8)
        tiles = -(-(right - left) // width) * -(-(bottom - top) // height)
        place = start + 2
        while data[place : place + 2] not in {_END, b""}:
            marker, length, tile, size, _, count = struct.unpack_from(">HHHIBB", data, place)
            if marker != _START_OF_TILE:
                place += 2 + length
                continue
            parts[tile] = parts.get(tile, 0) + 1
            stated[tile] = max(count, stated.get(tile, 0))
            if size == 0:  # to the end
                break
            place += max(size, _SHORTEST_PART)
    except (struct.error, ZeroDivisionError):
        raise ImageError("is damaged: the parts of the JPEG 2000 file do not follow each other") from None
    whole = sum(parts[tile] >= stated[tile] for tile in parts if tile < tiles)
    if whole < tiles:
        raise ImageError(f"is damaged: {tiles - whole:,} of {tiles:,} tiles lack data")
