"""PNG. libpng through imagecodecs, since Pillow reduces 16-bit colour to 8 bits without a word."""

from __future__ import annotations

import ctypes
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images.colour import MAX_ICC_BYTES, is_grey, usable_profile
from pipelines.images.colour_space import SRGB, ColourSpace, coded_space, is_possible
from pipelines.images.exif import read_exif
from pipelines.images.image import Admit, Raster
from pipelines.images.tags import Tags

_PALETTE = 3  # colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits by colour type
_METRES_PER_INCH = 0.0254
_SPARE_BYTES = 2**16  # of image data, beyond what pixels take
_ESSENTIAL = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_DESCRIPTIVE = frozenset({b"pHYs", b"iCCP", b"eXIf", b"acTL", b"cICP", b"sRGB", b"gAMA", b"cHRM"})
_UNIT = 100_000  # of gAMA and cHRM


def decode_png(data: bytes, admit: Admit) -> Raster:
    """Decode a PNG file.

    Grey of 1, 2 and 4 bits is scaled to 8, palettes become grey or RGB, and a transparent colour becomes an alpha
    channel.

    Raises:
        ImageError: the file is truncated, or a checksum is wrong.
        PngError: libpng cannot decode it.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ImageError(f"is truncated: ends after {len(data)} bytes, inside its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    admit(width, height)
    if depth not in _DEPTHS.get(colour, ()) or data[26:29] not in {b"\0\0\0", b"\0\0\1"}:  # libpng would print a line
        raise ImageError(f"is damaged: no PNG file has {depth} bits in colour type {colour}, stored as this one")
    room = 2 * _stored_bytes(width, height, depth, colour) + _SPARE_BYTES
    described: dict[bytes, bytes] = {}
    essential, palette = [data[:8]], b""
    for kind, start, end in _chunks(data):
        if kind not in _DESCRIPTIVE | _ESSENTIAL:
            continue
        is_whole = zlib.crc32(data[start - 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        if kind in _DESCRIPTIVE and is_whole:
            described.setdefault(kind, data[start:end])
        elif kind in _ESSENTIAL:
            if not is_whole:
                raise ImageError(f"is damaged: wrong checksum of the {kind.decode()} chunk at byte {start - 8:,}")
            room -= end - start if kind == b"IDAT" else 0
            if room < 0:  # all of it would be unpacked, a thousand times as much
                raise ImageError("is damaged: it holds more image data than its pixels have")
            essential.append(data[start - 8 : end + 4])
            palette = data[start:end] if kind == b"PLTE" else palette

    import imagecodecs

    # Of what is left out, libpng would print warnings on the terminal, as of colour profiles that it finds odd.
    try:
        samples = imagecodecs.png_decode(b"".join(essential))
    except imagecodecs.PngError:
        # With each file that it cannot decode, 2026.3.6 gives up a reference to None that is not its own: before Python
        # 3.12, the eight thousandth such file ends the process. A reference too many harms nobody.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(None))
        raise
    icc = _profile(described.get(b"iCCP"))
    if colour == _PALETTE and usable_profile(icc, 3) is None and is_grey(_entries(palette)):
        samples = np.ascontiguousarray(samples[..., 2 : samples.shape[2]])
    exif = read_exif(described.get(b"eXIf"))
    frames = int.from_bytes(described.get(b"acTL", b"")[:4], "big")
    notes = (f"animated PNG: first of {frames} frames",) if frames > 1 else ()
    if trailing := len(data) - end - 4:
        notes = (*notes, f"{trailing:,} bytes after the end of the PNG ignored")
    return Raster(
        samples=samples,
        bit_depth=8 if colour == _PALETTE else depth,
        icc=icc,
        dpi=_resolution(described.get(b"pHYs")) or exif.dpi,
        orientation=exif.orientation,
        notes=notes,
        space=_space(described) or exif.space,
        cicp=described[b"cICP"] if len(described.get(b"cICP", b"")) == 4 else None,
        tags=Tags(exif=exif.kept),
    )


def _entries(palette: bytes) -> NDArray[np.uint8]:
    """(N, 3)."""
    return np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)


def _stored_bytes(width: int, height: int, depth: int, colour: int) -> int:
    """Of pixels that are not compressed."""
    channels = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}[colour]
    return height * (1 + -(-width * channels * depth // 8))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    # libpng is content once it has the last row: only this walk notices that the end of the file is missing.
    place = 8
    while True:
        if place + 12 > len(data):
            raise ImageError(f"is truncated: ends after {len(data):,} bytes, before its IEND chunk")
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        if not kind.isalpha():
            raise ImageError(f"is damaged: a chunk of unknown type {kind.hex(' ')} at byte {place:,}")
        end = place + 8 + length
        if end + 4 > len(data):
            raise ImageError(
                f"is truncated: its last {kind.decode()} chunk holds {len(data) - place - 8:,} of {length:,} bytes"
            )
        yield kind, place + 8, end
        if kind == b"IEND":
            return
        place = end + 4


def _profile(chunk: bytes | None) -> bytes | None:
    if chunk is None:
        return None
    name_end = chunk.find(b"\x00")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(chunk[name_end + 2 :], MAX_ICC_BYTES)
    except zlib.error:
        return None  # the pixels do not depend on it
    return None if inflate.unconsumed_tail else profile


def _space(described: dict[bytes, bytes]) -> ColourSpace | None:
    """Return the colour space that chunks state, the first that counts.

    Source:
        PNG, third edition, 4.3 (colour spaces).
    """
    if (code := described.get(b"cICP")) is not None:
        return coded_space(code)
    if b"sRGB" in described:
        return SRGB
    gamma, chromaticities = described.get(b"gAMA", b""), described.get(b"cHRM", b"")
    found, sources = SRGB, []
    if len(gamma) == 4 and any(gamma):
        found, sources = replace(found, curve=_UNIT / int.from_bytes(gamma, "big")), ["gAMA"]
    if len(chromaticities) == 32:
        white_x, white_y, *primaries = (value / _UNIT for value in struct.unpack(">8I", chromaticities))
        if is_possible(primaries, (white_x, white_y)):
            red_x, red_y, green_x, green_y, blue_x, blue_y = primaries
            lights = (red_x, red_y, green_x, green_y, blue_x, blue_y)
            found, sources = replace(found, primaries=lights, white=(white_x, white_y)), [*sources, "cHRM"]
    return replace(found, source=f"{' and '.join(sources)} chunk{'s' * (len(sources) > 1)}") if sources else None


def _resolution(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) < 9:
        return None
    x, y, unit = struct.unpack_from(">IIB", chunk)
    return (x * _METRES_PER_INCH, y * _METRES_PER_INCH) if unit == 1 and x and y else None
