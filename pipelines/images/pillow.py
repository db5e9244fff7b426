"""GIF, BMP and WebP, through Pillow.

The plugin classes are used directly: `PIL.Image.open` would warn about large images at a limit of its own.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import is_grey
from pipelines.images.exif import dots_per_inch, read_exif
from pipelines.images.image import Admit, Raster

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_MOST_FRAMES = 10_000  # that are counted

# Pillow's modes -> (mode to convert to, bits per sample in the file)
_MODES = {"1": ("L", 1), "L": ("L", 8), "LA": ("LA", 8), "P": ("RGB", 8), "RGB": ("RGB", 8), "RGBA": ("RGBA", 8)}


def decode_gif(data: bytes, admit: Admit) -> Raster:
    """Decode the first frame of a GIF file, on its canvas."""
    from PIL.GifImagePlugin import GifImageFile

    width, height = _gif_canvas(data)
    admit(width, height)
    # With the canvas already large enough, Pillow has no reason to enlarge it, and to warn.
    image = GifImageFile(io.BytesIO(data[:6] + struct.pack("<HH", width, height) + data[10:]))
    raster = _raster(image, admit, ())
    frames = _gif_frames(data)
    more = " or more" if frames == _MOST_FRAMES else ""
    notes = (f"animated GIF: first of {frames}{more} frames",) if frames > 1 else ()
    return Raster(samples=raster.samples, bit_depth=8, notes=notes)


def decode_bmp(data: bytes, admit: Admit) -> Raster:
    """Decode a Windows bitmap."""
    from PIL.BmpImagePlugin import BmpImageFile

    return _raster(BmpImageFile(io.BytesIO(data)), admit, ())


def decode_webp(data: bytes, admit: Admit) -> Raster:
    """Decode a WebP file, the first frame of an animated one."""
    from PIL.WebPImagePlugin import WebPImageFile

    admit(*_webp_canvas(data))  # Pillow allocates the canvas as it opens the file
    image = WebPImageFile(io.BytesIO(data))
    notes = (f"animated WebP: first of {image.n_frames} frames",) if image.n_frames > 1 else ()
    return _raster(image, admit, notes)


def _raster(image: ImageFile, admit: Admit, notes: tuple[str, ...]) -> Raster:
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
    )


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


def _webp_canvas(data: bytes) -> tuple[int, int]:
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
