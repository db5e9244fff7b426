"""How many bits the 16-bit images of a folder fill, by some of them: one dark picture alone does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from pipelines.base.subsample import evenly_spaced
from pipelines.errors import FolderError, ImageError
from pipelines.images import Failed, Image, ImageFile, open_images
from pipelines.images.bits import ALL, NARROW, bits_of, is_deep, narrowest, stretch
from pipelines.images.convert import hardly_used
from pipelines.images.header import sniff
from pipelines.settings import settings

LOOKED_AT = 24  # images of a folder
_START = 64  # bytes of a file: its format, and of a PNG its depth
_SHALLOW = frozenset({"JPEG", "GIF", "BMP", "WebP", "AVIF", "HEIC"})  # have 12 bits at most, and state how many
_PAGES = 4  # of a TIFF: a thumbnail may come before the picture
_DEPTH = 24  # where a PNG has its bits for each sample


def check_bits(asked: int | None) -> int | None:
    """Return the bits that somebody asks for.

    Raises:
        FolderError: No 16-bit file fills that number.
    """
    if asked is not None and not NARROW[0] <= asked <= ALL:
        raise FolderError(f"bits is {asked}: from {NARROW[0]} to {ALL}")
    return asked


def in_all_bits(image: Image, bits: int) -> tuple[Image, int, str | None]:
    """Bring an image to all 16 bits.

    Args:
        image: The image; one of 8 bits stays as it is.
        bits: That the 16-bit images of its folder fill.

    Returns:
        The image; the bits that it was read with; a note where these are not plainly all of its file.
    """
    used = bits_of(image, bits)
    if used == ALL:
        return image, used, hardly_used(image)
    note = f"read as {used} bits: from 0 to {(1 << used) - 1}"
    return replace(image, pixels=stretch(image.pixels, used)), used, note


def describe_bits(bits: int) -> str:
    """Return a sentence on a folder whose 16-bit files fill fewer bits."""
    return (
        f"16-bit files of this folder fill {bits} bits: they were read with {(1 << bits) - 1} as the largest value. "
        f"Give --bits {ALL} where they are meant to be so dark"
    )


def survey_bits(files: Sequence[ImageFile]) -> int:
    """Return how many bits the 16-bit images among some files fill: 8, 10, 12, or 16 where one of them shows it.

    It depends on the files alone, so a job that is started again finds the same. Files that cannot be read say nothing.
    """
    deep = [file for file in evenly_spaced(files, LOOKED_AT) if _may_be_deep(file)]
    limits, found = settings(), 0
    for opened in open_images(deep, workers=limits.workers, max_pixels=limits.max_pixels):
        if isinstance(opened, Failed) or not is_deep(image := opened.take()):
            continue
        found = max(found, narrowest(int(image.pixels.max())))
        if found == ALL:
            break
    return found or ALL


def _may_be_deep(file: ImageFile) -> bool:
    """Return whether a file may have 16 bits, by its first bytes: most files have 8, and need not be decoded."""
    try:
        with file.path.open("rb") as stream:
            start = stream.read(_START)
        kind = sniff(start)
    except (OSError, ImageError):
        return False
    if kind == "TIFF":
        return _tiff_is_deep(file)
    return kind not in _SHALLOW and (kind != "PNG" or start[_DEPTH : _DEPTH + 1] == bytes([ALL]))


def _tiff_is_deep(file: ImageFile) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(file.path) as tiff:
            first = (page.keyframe for page in islice(tiff.pages, _PAGES))
            return any(page is not None and page.bitspersample == ALL for page in first)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the decoder will tell
        return False
