"""GIF, BMP and WebP, through Pillow.

The plugin classes are used directly: `PIL.Image.open` would warn about large images at a limit of its own.
"""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images.colour import is_grey
from pipelines.images.colour_space import SRGB, ColourSpace, is_possible
from pipelines.images.exif import dots_per_inch, read_exif
from pipelines.images.image import Admit, Raster
from pipelines.images.tags import Tags

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_MOST_FRAMES = 10_000  # that are counted

_BMP_V4, _BMP_V5 = 108, 124  # bytes of the headers
_BMP_CALIBRATED, _BMP_SRGB = 0, frozenset({0x73524742, 0x57696E20})  # colour spaces: "sRGB", and "Win " for the same
_BMP_LINKED, _BMP_EMBEDDED = 0x4C494E4B, 0x4D424544

# Pillow's modes -> (mode to convert to, bits per sample in the file)
_MODES = {"1": ("L", 1), "L": ("L", 8), "LA": ("LA", 8), "P": ("RGB", 8), "RGB": ("RGB", 8), "RGBA": ("RGBA", 8)}


def decode_gif(data: bytes, admit: Admit) -> Raster:
    """Decode the first frame of a GIF file, on its canvas."""
    from PIL.GifImagePlugin import GifImageFile

    width, height = _gif_canvas(data)
    admit(width, height)
    # With the canvas already large enough, Pillow has no reason to enlarge it, and to warn.
    image = GifImageFile(io.BytesIO(data[:6] + struct.pack("<HH", width, height) + data[10:]))
    raster = raster_of(image, admit, ())
    frames = _gif_frames(data)
    more = " or more" if frames == _MOST_FRAMES else ""
    notes = (f"animated GIF: first of {frames}{more} frames",) if frames > 1 else ()
    return Raster(samples=raster.samples, bit_depth=8, notes=notes)


def decode_bmp(data: bytes, admit: Admit) -> Raster:
    """Decode a Windows bitmap."""
    from PIL.BmpImagePlugin import BmpImageFile

    raster = raster_of(BmpImageFile(io.BytesIO(data)), admit, ())
    icc, space, notes = _bmp_colours(data)
    return replace(raster, icc=icc, space=space, notes=raster.notes + notes)


def decode_webp(data: bytes, admit: Admit) -> Raster:
    """Decode a WebP file, the first frame of an animated one."""
    from PIL.WebPImagePlugin import WebPImageFile

    admit(*webp_canvas(data))  # Pillow allocates the canvas as it opens the file
    image = WebPImageFile(io.BytesIO(data))
    notes = (f"animated WebP: first of {image.n_frames} frames",) if image.n_frames > 1 else ()
    return raster_of(image, admit, notes)


def raster_of(image: ImageFile, admit: Admit, notes: tuple[str, ...]) -> Raster:
    """Decode what Pillow has opened, with its profile, resolution and orientation."""
    admit(*image.size)
    if image.mode not in _MODES:
        raise ImageError(f"has pixels of the kind {image.mode!r}: save it as grey or RGB")
    mode, depth = _MODES[image.mode]
    if image.mode == "P" and is_grey(np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)):
        mode = "L"
    if "transparency" in image.info:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    image.load()
    converted = image if image.mode == mode else image.convert(mode)
    shape = (image.height, image.width, len(mode))
    exif = read_exif(image.info.get("exif"))
    dpi = image.info.get("dpi", (0.0, 0.0))
    return Raster(
        samples=np.frombuffer(converted.tobytes(), np.uint8).reshape(shape),
        bit_depth=depth,
        icc=image.info.get("icc_profile"),
        dpi=dots_per_inch(dpi[0], dpi[1], 2) or exif.dpi,
        orientation=exif.orientation,
        notes=notes,
        space=exif.space,
        tags=Tags(exif=exif.kept),
    )


def _bmp_colours(data: bytes) -> tuple[bytes | None, ColourSpace | None, tuple[str, ...]]:
    """Return the profile of a bitmap, the colour space that it states otherwise, and what a person should know.

    Source:
        BITMAPV4HEADER and BITMAPV5HEADER of Windows; numbers of 2 and 16 bits before the point.
    """
    size = int.from_bytes(data[14:18], "little")
    if size < _BMP_V4 or len(data) < 14 + size:
        return None, None, ()
    (kind,) = struct.unpack_from("<I", data, 70)
    if kind in _BMP_SRGB:
        return None, SRGB, ()
    if kind == _BMP_CALIBRATED:
        lights = np.array(struct.unpack_from("<9i", data, 74), np.float64).reshape(3, 3) / 2**30
        gammas = np.array(struct.unpack_from("<3I", data, 110), np.float64) / 2**16
        return None, _calibrated(lights, gammas), ()
    if kind == _BMP_EMBEDDED and size >= _BMP_V5:
        start, length = struct.unpack_from("<II", data, 126)
        return data[14 + start : 14 + start + length], None, ()
    note = "the bitmap's colour profile is another file: not read"
    return None, None, (note,) if kind == _BMP_LINKED else ()


def _calibrated(lights: NDArray[np.float64], gammas: NDArray[np.float64]) -> ColourSpace | None:
    """Return the colour space of three lights (X, Y and Z in rows) whose sum is white; None where they are none."""
    sums = np.append(lights, lights.sum(axis=0, keepdims=True), axis=0)
    if not (sums > 0).any(axis=1).all() or not gammas.all():
        return None
    x, y = (sums[:, axis] / sums.sum(axis=1) for axis in (0, 1))
    red_x, green_x, blue_x, white_x = x.tolist()
    red_y, green_y, blue_y, white_y = y.tolist()
    lights_xy = (red_x, red_y, green_x, green_y, blue_x, blue_y)
    if not is_possible(lights_xy, (white_x, white_y)):
        return None
    return ColourSpace(lights_xy, (white_x, white_y), float(gammas.mean()), "bitmap's header")


def _gif_canvas(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    place = _gif_frame(data, 13 + _gif_colours(data, 10))
    if data[place : place + 1] != b"," or place + 10 > len(data):
        raise ImageError("is truncated: ends before the first frame of the GIF")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, place + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _gif_frames(data: bytes) -> int:
    """Frames up to the end, to damage, or to as many as are counted. Pillow seeks them one by one: hours for some."""
    frames, place = 0, _gif_frame(data, 13 + _gif_colours(data, 10))
    while frames < _MOST_FRAMES and data[place : place + 1] == b"," and place + 10 < len(data):
        frames += 1
        place = _gif_frame(data, _after_blocks(data, place + 11 + _gif_colours(data, place + 9)))
    return frames


def _gif_colours(data: bytes, flags: int) -> int:
    """Bytes of the table of colours that these flags tell of."""
    return 3 << (data[flags] & 7) + 1 if data[flags] & 0x80 else 0


def _gif_frame(data: bytes, place: int) -> int:
    """Where the next frame begins, after any extensions."""
    while data[place : place + 1] == b"!":
        place = _after_blocks(data, place + 2)
    return place


def _after_blocks(data: bytes, place: int) -> int:
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def webp_canvas(data: bytes) -> tuple[int, int]:
    """Return the width and height that a WebP file states.

    Raises:
        ImageError: It is truncated, or states none.
    """
    length = 8 + int.from_bytes(data[4:8], "little")
    if length > len(data):
        raise ImageError(f"is truncated: it holds {len(data):,} of {length:,} bytes")
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise ImageError("is damaged: a WebP file without an image header")
