"""TIFF: the page that is the picture, through tifffile and imagecodecs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import cmyk_to_rgb, from_palette, to_full_range, unpremultiply, usable_profile
from pipelines.images.image import Admit, Raster, admit_channels
from pipelines.images.samples import Samples
from pipelines.images.tiff_pages import find_picture
from pipelines.images.tiff_segments import check_segment
from pipelines.images.tiff_tags import describe_page

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6  # PhotometricInterpretation
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3}  # samples of colour
_UNSIGNED = 1  # SampleFormat
_PLANAR = 2  # PlanarConfiguration
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples: alpha that the colour is, or is not, multiplied by
_ALPHAS = frozenset({_ASSOCIATED, _UNASSOCIATED})
_PLAIN, _JPEG = 1, 7  # Compression
_STRIP_COUNTS, _TILE_COUNTS = 279, 325  # tags


def decode_tiff(data: bytes, admit: Admit) -> Raster:
    """Decode the picture of a TIFF or BigTIFF file: its first page, unless that is a thumbnail or a mask.

    Grey, RGB, palette and CMYK of 1 to 16 bits, strips or tiles, interleaved or planar, in every compression that
    tifffile knows. Multiplied (associated) alpha is undone; channels that are neither colour nor alpha are dropped.

    Raises:
        ImageError: the file is truncated, or its samples have no fixed range (float, signed, 32 bits) or no known
            meaning.
    """
    import tifffile

    picture = find_picture(data)
    with np.errstate(all="ignore"):  # long tags are arrays, in damaged files of numbers that overflow
        file = tifffile.TiffFile(io.BytesIO(data))
        file.filehandle.seek(picture.offset)
        page = tifffile.TiffPage(file, 0)
    with file:
        if page.imagedepth != 1:
            raise ImageError(f"is a volume of {page.imagedepth} slices: save each slice as an image")
        admit_channels(admit, page.imagewidth, page.imagelength, page.samplesperpixel)
        _check_samples(page)
        _find_segments(page, data)
        oddities = _check_segments(page, data, admit)
        stored = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, H, W, interleaved)
        planes = stored[:, 0, :, :, 0].transpose(1, 2, 0) if stored.shape[0] > 1 else stored[0, 0]
        notes = picture.notes + (_stack_note(file, page) if picture.is_alone else ())
        samples, icc, more = _to_grey_or_rgb(page, planes)
        described = describe_page(data, picture.offset)
        return Raster(
            samples=samples,
            bit_depth=int(page.bitspersample),
            icc=icc,
            dpi=described.dpi,
            orientation=described.orientation,
            notes=notes + oddities + more,
            space=None if page.photometric == _SEPARATED else described.space,
            tags=described.tags,
        )


def _check_samples(page: TiffPage) -> None:
    if page.photometric not in _COLOURS:
        name = getattr(page.photometric, "name", page.photometric)
        raise ImageError(f"has the colour space {name}: save it as grey, RGB, palette or CMYK")
    if (page.photometric == _YCBCR and page.compression != _JPEG) or page.tags.valueof(332) == 2:  # InkSet: not CMYK
        raise ImageError("has YCbCr without JPEG compression, or inks other than CMYK: save it as grey, RGB or CMYK")
    if page.sampleformat != _UNSIGNED or page.bitspersample not in range(1, 17):
        kind = {2: "signed", 3: "floating point", 5: "complex", 6: "complex"}.get(page.sampleformat, "unsigned")
        raise ImageError(
            f"has {page.bitspersample}-bit {kind} samples, which have no fixed range: "
            "scale it to 8 or 16 bits, unsigned, and save it again"
        )
    if page.samplesperpixel < _COLOURS[page.photometric]:
        raise ImageError(f"is damaged: {page.samplesperpixel} channels in a colour space of more")
    unknown = page.samplesperpixel - sum(each in _ALPHAS for each in page.extrasamples)
    if page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO} and unknown > 2:
        raise ImageError(
            f"has {page.samplesperpixel} grey channels of unknown meaning: save one of them as grey, or three as RGB"
        )


def _find_segments(page: TiffPage, data: bytes) -> None:
    """Work out the byte counts of strips and tiles that are absent, zero, or beyond the pixels, as libtiff does."""
    offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    if _STRIP_COUNTS not in page.tags and _TILE_COUNTS not in page.tags:
        counts = [0] * len(offsets)
    starts = np.unique([*offsets, len(data)])
    for index, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
        if offset == 0:  # a tile of a sparse file
            continue
        is_plain = page.compression == _PLAIN
        if is_plain and (count == 0 or offset + count > len(data)):
            counts[index] = _plain_bytes(page, index)
        if count == 0:
            room = int(starts[np.searchsorted(starts, min(offset, len(data) - 1), side="right")]) - offset
            if is_plain and counts[index] > room > 0 and offset + counts[index] <= len(data):
                raise ImageError("is damaged: a strip or tile without data")
            counts[index] = counts[index] if is_plain else max(room, 0)
    page.databytecounts = tuple(counts)


def _plain_bytes(page: TiffPage, index: int) -> int:
    """Bytes of a strip or tile that is not compressed."""
    samples = 1 if page.planarconfig == _PLANAR else page.samplesperpixel
    width, height = page.imagewidth, page.rowsperstrip
    if page.is_tiled:
        width, height = page.tilewidth, page.tilelength
    else:
        strips = -(-page.imagelength // height)
        height = min(height, page.imagelength - index % strips * height)
    return height * -(-width * samples * page.bitspersample // 8)


def _check_segments(page: TiffPage, data: bytes, admit: Admit) -> tuple[str, ...]:
    # tifffile fills strips and tiles that are missing with zeros.
    if page.is_tiled:
        admit(page.tilewidth, page.tilelength)
    expected = int(np.prod(page.chunked))
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if not expected or listed < expected:
        raise ImageError(f"is damaged: it lists {listed} of {expected} strips or tiles")
    empty, notes = 0, dict[str, None]()
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        if index == expected:
            break
        if offset + count > len(data):
            raise ImageError(f"is truncated: pixels should go on to byte {offset + count:,} of {len(data):,}")
        if (offset == 0) != (count == 0):
            raise ImageError("is damaged: a strip or tile without data")
        if count:
            notes |= dict.fromkeys(check_segment(page, index, data[offset : offset + count], admit))
        empty += not count
    if empty:
        notes[f"sparse TIFF: {empty:,} of {expected:,} strips or tiles are empty"] = None
    return tuple(notes)


def _to_grey_or_rgb(page: TiffPage, planes: Samples) -> tuple[Samples, bytes | None, tuple[str, ...]]:
    colours = _COLOURS[page.photometric]
    icc = page.tags.valueof(34675)
    icc = icc if isinstance(icc, bytes) else None
    notes: tuple[str, ...] = ()
    extras = tuple(page.extrasamples)[: planes.shape[-1] - colours]
    alpha = next((index for index, extra in enumerate(extras) if extra in _ALPHAS), None)
    dropped = planes.shape[-1] - colours - (alpha is not None)
    if dropped:
        notes = (f"channels that are neither colour nor alpha ignored: {dropped}",)
    if page.photometric == _PALETTE:
        if page.colormap is None:
            raise ImageError("is damaged: a palette image without a palette")
        # Entries have 16 bits, of which the upper 8 count; where all are below 256, those are lost, and the lower
        # count (both as libtiff reads them).
        wide = page.colormap.T
        palette = (wide if wide.max() < 256 else wide >> 8).astype(np.uint8)
        if usable_profile(icc, 3) is None:
            return from_palette(palette, planes[..., 0]), None, notes
        return palette[planes[..., 0].astype(np.intp)], icc, notes
    chosen = list(range(colours)) + ([] if alpha is None else [colours + alpha])
    planes = planes[..., : len(chosen)] if chosen == list(range(len(chosen))) else planes[..., chosen]
    samples = to_full_range(planes, 2**page.bitspersample - 1)
    if page.photometric == _WHITE_IS_ZERO:
        samples = samples.copy()
        samples[..., 0] = ~samples[..., 0]
    if alpha is not None and extras[alpha] == _ASSOCIATED:
        samples = unpremultiply(samples)
    if page.photometric == _SEPARATED:
        rgb, note = cmyk_to_rgb(samples[..., :4], icc)
        samples = np.concatenate([rgb, samples[..., 4:]], axis=2)
        return samples, None, (*notes, note)
    return samples, icc, notes


def _stack_note(file: TiffFile, page: TiffPage) -> tuple[str, ...]:
    """What is said where the one page stands for several images behind each other."""
    if not (page.is_imagej or page.is_shaped or page.is_stk or page.is_nih):
        return ()
    series = file.series[0] if file.series else None
    images = 1 if series is None else series.size // max(1, page.size)
    name = "ImageJ" if page.is_imagej else "TIFF"
    return (f"{name} stack of {images} images: the first",) if images > 1 else ()
