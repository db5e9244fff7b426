"""One file to one `Image`: the bytes once, the header, the decoder of the format, and one boundary for all errors."""

from __future__ import annotations

import hashlib
import logging
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pipelines.base.safe_text import one_line
from pipelines.errors import ImageError
from pipelines.images.colour import usable_profile
from pipelines.images.colour_space import profile_of
from pipelines.images.exif import SWAPS_SIDES, upright
from pipelines.images.header import check_pixels, sniff
from pipelines.images.heif import decode_avif, decode_heic
from pipelines.images.image import Admit, Image, Raster
from pipelines.images.jpeg import decode_jpeg
from pipelines.images.jpeg2000 import decode_jpeg2000
from pipelines.images.jpegxl import decode_jpegxl
from pipelines.images.pillow import decode_bmp, decode_gif, decode_webp
from pipelines.images.png import decode_png
from pipelines.images.pnm import decode_pnm
from pipelines.images.tiff import decode_tiff

_DECODERS: dict[str, Callable[[bytes, Admit], Raster]] = {
    "PNG": decode_png,
    "JPEG": decode_jpeg,
    "TIFF": decode_tiff,
    "GIF": decode_gif,
    "BMP": decode_bmp,
    "WebP": decode_webp,
    "PNM": decode_pnm,
    "JPEG 2000": decode_jpeg2000,
    "JPEG XL": decode_jpegxl,
    "AVIF": decode_avif,
    "HEIC": decode_heic,
}
_NEEDED = {"HEIC": ("pillow_heif", "pillow-heif")}  # format -> module and package that not every installation has

# These log every oddity of a file, and Python prints what nobody handles. What matters of it becomes the file's row.
for _library in ("PIL", "imagecodecs", "pillow_heif", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False

_BYTES_PER_PIXEL = 8  # 16-bit RGB with alpha, not compressed
_SPARE_BYTES = 64 * 2**20  # metadata, and the other pages of small files


def readable_formats() -> list[str]:
    """Return the names of the formats that are read here."""
    return [name for name in _DECODERS if name not in missing_packages()]


def missing_packages() -> dict[str, str]:
    """Return the package that is not installed for each format that is therefore not read."""
    return {name: package for name, (module, package) in _NEEDED.items() if find_spec(module) is None}


def read_image(path: Path, *, max_pixels: int) -> Image:
    """Read one image file.

    The format is that of the first bytes, whatever the file is called. Orientation is applied; of animations and of
    files with several pages the first picture is taken, with a note.

    Args:
        path: The file.
        max_pixels: Largest number of pixels to decode; the header is checked before any pixel is.

    Raises:
        ImageError: what is wrong with the file, in words that follow its name ("is truncated: ...").
    """
    data, sha256 = read_bytes(path, max_pixels=max_pixels)
    return decode_bytes(data, sha256, max_pixels=max_pixels)


def read_bytes(path: Path, *, max_pixels: int) -> tuple[bytes, str]:
    """Read a file once.

    Args:
        path: The file.
        max_pixels: Files that are larger than an uncompressed image of so many pixels are refused.

    Returns:
        Its bytes and their sha256 (hexadecimal).

    Raises:
        ImageError: the file is gone, is not a regular file, may not be read, or is too large.
    """
    limit = max_pixels * _BYTES_PER_PIXEL + _SPARE_BYTES
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError("is a folder, not a file" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
        if status.st_size > limit:
            raise ImageError(
                f"has {status.st_size:,} bytes, above the limit of {limit:,} for an image of "
                f"{max_pixels:,} pixels (KINTSUGI_MAX_PIXELS)"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        dangling = path.is_symlink()
        raise ImageError("is a link to a file that is gone" if dangling else "is gone since it was listed") from None
    except PermissionError:
        raise ImageError("may not be read: permission denied") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read: {one_line(getattr(error, 'strerror', None) or error)}") from error
    except MemoryError:
        raise ImageError("does not fit into memory") from None
    return data, hashlib.sha256(data).hexdigest()


def decode_bytes(data: bytes, sha256: str, *, max_pixels: int, admit: Callable[[int], None] | None = None) -> Image:
    """Decode the bytes of an image file.

    Args:
        data: The file's bytes.
        sha256: Their digest.
        max_pixels: Largest number of pixels to decode.
        admit: Called with the number of pixels between the check of the header and decoding; it may wait.

    Raises:
        ImageError: what is wrong with the file.
    """
    kind = sniff(data)

    def admit_size(width: int, height: int) -> None:
        check_pixels(width, height, max_pixels)
        if admit is not None:
            admit(width * height)

    try:
        return _assemble(_DECODERS[kind](data, admit_size), sha256)
    except ImageError as error:
        # A damaged header can put any number of numbers into a message.
        raise ImageError(one_line(error, limit=240)) from error.__cause__
    except MemoryError:
        raise ImageError("does not fit into memory: lower KINTSUGI_WORKERS or KINTSUGI_MAX_PIXELS") from None
    except Exception as error:  # the decoders raise whatever they like; a file must never stop a job
        reason = one_line(error) or type(error).__name__
        raise ImageError(f"cannot be decoded as {kind}: {reason}") from error


def _assemble(raster: Raster, sha256: str) -> Image:
    samples = raster.samples if raster.samples.ndim == 3 else raster.samples[..., None]
    samples = upright(samples, raster.orientation)
    has_alpha = samples.shape[2] in {2, 4}
    pixels = upright(samples[..., :-1], 1) if has_alpha else samples
    dpi = raster.dpi
    if dpi is not None and raster.orientation in SWAPS_SIDES:
        dpi = (dpi[1], dpi[0])
    icc, source = usable_profile(raster.icc, pixels.shape[2]), None
    if icc is None and raster.space is not None:
        icc = profile_of(raster.space, pixels.shape[2])
        source = raster.space.source if icc is not None and not raster.space.is_srgb else None
    return Image(
        pixels=pixels,
        alpha=upright(samples[..., -1:], 1) if has_alpha else None,
        bit_depth=raster.bit_depth,
        sha256=sha256,
        icc=icc,
        dpi=dpi,
        note="; ".join(raster.notes) or None,
        icc_source=source,
        cicp=raster.cicp,
        tags=None if raster.tags is None else raster.tags.turned(raster.orientation),
    )
