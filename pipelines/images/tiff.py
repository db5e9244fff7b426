"""TIFF: the first page, through tifffile and imagecodecs."""

from __future__ import annotations

import io
import logging
import struct
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import cmyk_to_rgb, to_full_range, unpremultiply
from pipelines.images.exif import dots_per_inch
from pipelines.images.image import Admit, Raster, Samples
from pipelines.images.lzw import begins_with_bytes

if TYPE_CHECKING:
    from tifffile import TiffPage

# tifffile logs every oddity of a file; what matters of them becomes the file's row.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6  # PhotometricInterpretation
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3}  # samples of colour
_UNSIGNED = 1  # SampleFormat
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples: alpha that the colour is, or is not, multiplied by
_LZW, _JPEG = 5, 7  # Compression
_MOST_PAGES = 10_000  # that are counted


def decode_tiff(data: bytes, admit: Admit) -> Raster:
    """Decode the first page of a TIFF or BigTIFF file.

    Grey, RGB, palette and CMYK of 1 to 16 bits, strips or tiles, interleaved or planar, in every compression that
    tifffile knows. Multiplied (associated) alpha is undone; channels that are neither colour nor alpha are dropped.

    Raises:
        ImageError: the file is truncated, or its samples have no fixed range (float, signed, 32 bits) or no known
            meaning.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if not _page_offsets(data):
            raise ImageError("is damaged: a TIFF file without pages")
        page = file.pages.first
        if page.imagedepth != 1:
            raise ImageError(f"is a volume of {page.imagedepth} slices: save each slice as an image")
        admit(page.imagewidth, page.imagelength)
        _check_samples(page)
        _check_segments(page, data, admit)
        stored = page.asarray(squeeze=False, maxworkers=1)  # (planes, 1, H, W, interleaved)
        planes = stored[:, 0, :, :, 0].transpose(1, 2, 0) if stored.shape[0] > 1 else stored[0, 0]
        notes = _page_note(data)
        samples, icc, more = _to_grey_or_rgb(page, planes)
        return Raster(
            samples=samples,
            bit_depth=int(page.bitspersample),
            icc=icc,
            dpi=_resolution(page),
            orientation=_orientation(page),
            notes=notes + more,
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
    if page.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO} and page.samplesperpixel > 2:
        raise ImageError(
            f"has {page.samplesperpixel} grey channels of unknown meaning: save one of them as grey, or three as RGB"
        )


def _check_segments(page: TiffPage, data: bytes, admit: Admit) -> None:
    # tifffile fills strips and tiles that are missing with zeros, and libjpeg those that end early with grey.
    if page.is_tiled:
        admit(page.tilewidth, page.tilelength)
    expected = int(np.prod(page.chunked))
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if not expected or listed < expected:
        raise ImageError(f"is damaged: it lists {listed} of {expected} strips or tiles")
    for offset, count in zip(page.dataoffsets[:expected], page.databytecounts[:expected], strict=True):
        if offset + count > len(data):
            raise ImageError(f"is truncated: pixels should go on to byte {offset + count:,} of {len(data):,}")
        if (offset == 0) != (count == 0):  # both zero: an empty tile of a sparse file
            raise ImageError("is damaged: a strip or tile without data")
        if page.compression == _JPEG and count and data.find(b"\xff\xd9", offset, offset + count) < 0:
            raise ImageError("is damaged: a strip or tile ends early")
        if page.compression == _LZW and not begins_with_bytes(_in_order(page, data[offset : offset + count])):
            raise ImageError("is damaged: a strip or tile has an LZW code that stands for nothing")


def _in_order(page: TiffPage, segment: bytes) -> bytes:
    """Bytes of a strip or tile whose highest bit comes first."""
    if page.fillorder != 2:  # as tifffile has it, whatever else stands there
        return segment
    import imagecodecs

    return bytes(imagecodecs.bitorder_decode(segment))


def _to_grey_or_rgb(page: TiffPage, planes: Samples) -> tuple[Samples, bytes | None, tuple[str, ...]]:
    colours = _COLOURS[page.photometric]
    icc = page.tags.valueof(34675)
    icc = icc if isinstance(icc, bytes) else None
    notes: tuple[str, ...] = ()
    extra = tuple(page.extrasamples)[:1] if planes.shape[-1] > colours else ()
    has_alpha = bool(extra) and extra[0] in {_ASSOCIATED, _UNASSOCIATED}
    dropped = planes.shape[-1] - colours - has_alpha
    if dropped:
        notes = (f"channels that are neither colour nor alpha ignored: {dropped}",)
    if page.photometric == _PALETTE:
        if page.colormap is None:
            raise ImageError("is damaged: a palette image without a palette")
        # Entries have 16 bits, of which the upper 8 count (as libtiff reads them).
        return (page.colormap.T >> 8).astype(np.uint8)[planes[..., 0].astype(np.intp)], None, notes
    samples = to_full_range(planes[..., : colours + has_alpha], 2**page.bitspersample - 1)
    if page.photometric == _WHITE_IS_ZERO:
        samples = samples.copy()
        samples[..., 0] = ~samples[..., 0]
    if has_alpha and extra[0] == _ASSOCIATED:
        samples = unpremultiply(samples)
    if page.photometric == _SEPARATED:
        rgb, note = cmyk_to_rgb(samples[..., :4], icc)
        samples = np.concatenate([rgb, samples[..., 4:]], axis=2)
        return samples, None, (*notes, note)
    return samples, icc, notes


def _page_note(data: bytes) -> tuple[str, ...]:
    pages = len(_page_offsets(data))
    more = "or more " if pages == _MOST_PAGES else ""
    return (f"TIFF with {pages} {more}pages: the first",) if pages > 1 else ()


def _page_offsets(data: bytes) -> list[int]:
    # tifffile's own count never ends where the chain of pages bites its tail.
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in {b"\x2b\x00", b"\x00\x2b"}
    pointer, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    found: dict[int, None] = {}
    try:
        (offset,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
        while offset and offset not in found and len(found) < _MOST_PAGES:
            (entries,) = struct.unpack_from(order + count, data, offset)
            found[offset] = None
            (offset,) = struct.unpack_from(order + pointer, data, offset + struct.calcsize(count) + entries * entry)
    except struct.error:
        pass  # the chain leads out of the file: its first pages are still there
    return list(found)


def _resolution(page: TiffPage) -> tuple[float, float] | None:
    values = []
    for tag in (282, 283):
        fraction = page.tags.valueof(tag)
        if not (isinstance(fraction, tuple) and len(fraction) == 2 and fraction[1]):
            return None
        values.append(fraction[0] / fraction[1])
    unit = page.tags.valueof(296)
    return dots_per_inch(values[0], values[1], 2 if unit is None else int(unit))


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(274)
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
