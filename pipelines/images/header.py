"""What a file is, judged by its first bytes and never by its name, and whether it is too large to decode."""

from __future__ import annotations

import re

from pipelines.base.safe_text import one_line
from pipelines.errors import ImageError
from pipelines.images.isobmff import kind_of_picture

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2b\x00", "TIFF"),  # BigTIFF
    (b"MM\x00\x2b", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),  # a bare codestream
)
_PNM = re.compile(rb"P[1-6]\s*[#\s]\s*[#\d]")
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})

# Recognised only to be refused by name.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
)
SNIFFED = 1024  # bytes that say what a file is


def sniff(data: bytes) -> str:
    """Name the format of an image file.

    Args:
        data: The file's bytes.

    Returns:
        "PNG", "JPEG", "TIFF", "GIF", "BMP", "WebP", "PNM", "JPEG 2000", "JPEG XL", "AVIF" or "HEIC".

    Raises:
        ImageError: what the file is instead of an image.
    """
    if not data:
        raise ImageError("is empty (0 bytes)")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    # "P5" and "BM" are short enough to begin a sentence: ask for what must follow.
    if _PNM.match(data):
        return "PNM"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if kind := kind_of_picture(data):
        return kind
    raise ImageError(_what_else(data))


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image by the size that its header states.

    Args:
        width: Stated width in pixels.
        height: Stated height in pixels.
        max_pixels: Largest number of pixels to decode.

    Raises:
        ImageError: the size, the limit, and the setting that moves it.
    """
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels: its header says {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(
            f"is {width} x {height} = {_count(width * height)} pixels, above the limit of {_count(max_pixels)} "
            "(KINTSUGI_MAX_PIXELS)"
        )


def _count(pixels: int) -> str:
    return f"{pixels / 1e6:,.12g} million" if pixels >= 1_000_000 else f"{pixels:,}"


def _what_else(data: bytes) -> str:
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            return f"is {name}, which cannot be read here: save it as PNG or TIFF"
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        kind = "a camera raw" if brand == "crx" else "a video or another MP4-like"
        return f"is {kind} file (brand {brand!r}), which cannot be read here: save it as PNG or TIFF"
    if not data[:SNIFFED].strip(b"\x00"):
        return "begins with zero bytes only: it was probably never written out"
    start = data[:SNIFFED].decode("utf-8", "ignore")
    if b"\x00" not in data[:SNIFFED] and len(start.encode()) >= min(len(data), SNIFFED) - 3:
        return f'is a text file, not an image (it begins "{one_line(start, limit=40)}")'
    return f"is not in a known image format (it begins with the bytes {data[:8].hex(' ')})"
