"""Strips and tiles of a TIFF file: whether each holds all that is decoded from it, where its decoder would not say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images.fax import GROUP_3, GROUP_4, RLE, has_all_rows
from pipelines.images.image import Admit
from pipelines.images.jpeg import check_image_data
from pipelines.images.jpeg2000 import CODESTREAM, check_tiles, stated_size
from pipelines.images.jpegxl import admit_jpegxl
from pipelines.images.lzw import begins_with_bytes
from pipelines.images.pillow import webp_canvas

if TYPE_CHECKING:
    from tifffile import TiffPage

_FAX, _LZW = frozenset({RLE, GROUP_3, GROUP_4}), 5  # Compression
_JPEG, _JPEG_XR = frozenset({7, 33007, 34892}), frozenset({22610, 34934})
_JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
_WEBP, _PNG, _LERC, _JPEG_XL = 50001, 34933, 34887, frozenset({50002, 52546})
_T4_OPTIONS = 292  # tag
_END_OF_IMAGE = b"\xff\xd9"
_XR_OFFSET, _XR_BYTES, _XR_WIDTH, _XR_HEIGHT = 0xBCC0, 0xBCC1, 0xBC80, 0xBC81  # tags of JPEG XR
_SHORT = 3  # type of a tag
_CHECKSUM_FROM = 3  # version of LERC
_XR_TAGS = frozenset({  # which jxrlib knows; it prints a line for others
    0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0129, 0x0131, 0x0132, 0x013B, 0x013C, 0x02BC, 0x4746, 0x4749, 0x8298,
    0x83BB, 0x8649, 0x8769, 0x8773, 0x8825, 0x9C9B, *range(0xBC01, 0xBC05), *range(0xBC80, 0xBC84),
    *range(0xBCC0, 0xBCC6),
})  # fmt: skip


def check_segment(page: TiffPage, index: int, segment: bytes, admit: Admit) -> tuple[str, ...]:
    """Check a strip or tile that is not empty.

    What is an image file of its own is decoded at the size that it states itself, whatever the page says.

    Args:
        page: The page that it belongs to.
        index: Its number on the page.
        segment: Its bytes.
        admit: Called with the size that it states.

    Returns:
        Notes on its decoding.

    Raises:
        ImageError: data are missing, or damaged so that no decoder notices it, or it is too large.
    """
    if page.compression in _JPEG:
        return _check_jpeg(segment, page.jpegtables or b"", admit)

    def admit_part(width: int, height: int) -> None:
        try:
            admit(width, height)
        except ImageError as error:
            raise ImageError(f"has a strip or tile that {error}") from None

    if page.compression == _LZW and not begins_with_bytes(_in_order(page, segment)):
        raise ImageError("is damaged: a strip or tile has an LZW code that stands for nothing")
    if page.compression in _FAX and not _has_all_rows(page, index, segment):
        raise ImageError("is damaged: a strip or tile of its fax codes lacks rows, or has wrong ones")
    if page.compression in _JPEG_XR:
        _check_jpeg_xr(segment, admit_part)
    if page.compression in _JPEG_2000:
        start = max(segment.find(CODESTREAM), 0)
        admit_part(*stated_size(segment, start))
        check_tiles(segment, start)
    if page.compression in _JPEG_XL:
        admit_jpegxl(segment, admit_part)
    if page.compression == _WEBP:
        admit_part(*webp_canvas(segment))
    if page.compression in {_PNG, _LERC}:
        _admit_stated(segment, admit_part)
    return ()


def _admit_stated(segment: bytes, admit: Admit) -> None:
    if segment.startswith(b"\x89PNG") and len(segment) >= 24:
        admit(*struct.unpack_from(">II", segment, 16))
    elif segment.startswith(b"Lerc2 ") and len(segment) >= 22:
        (version,) = struct.unpack_from("<i", segment, 6)
        height, width = struct.unpack_from("<II", segment, 14 if version >= _CHECKSUM_FROM else 10)
        admit(width, height)


def _check_jpeg(segment: bytes, tables: bytes, admit: Admit) -> tuple[str, ...]:
    if _END_OF_IMAGE not in segment:
        raise ImageError("is damaged: a strip or tile ends early")
    if tables:
        segment = tables.removesuffix(_END_OF_IMAGE) + segment[2:]  # both begin with a start of image
    try:
        return check_image_data(segment, admit)
    except ImageError as error:
        raise ImageError(f"has a strip or tile that {error}") from None


def _has_all_rows(page: TiffPage, index: int, segment: bytes) -> bool:
    def decode(codes: bytes) -> NDArray[Any]:
        return np.asarray(page.decode(_in_order(page, codes), index)[0])[0, :, :, 0]  # of (1, H, W, 1)

    options = page.tags.valueof(_T4_OPTIONS)
    t4_options = options if isinstance(options, int) else 0
    return has_all_rows(_in_order(page, segment), decode, int(page.compression), t4_options)


def _check_jpeg_xr(segment: bytes, admit: Admit) -> None:
    """Check that image data are as long as the container says.

    Source:
        ITU-T T.832, annex A.
    """
    found = dict.fromkeys((_XR_OFFSET, _XR_BYTES, _XR_WIDTH, _XR_HEIGHT), 0)
    try:
        (directory,) = struct.unpack_from("<I", segment, 4)
        (entries,) = struct.unpack_from("<H", segment, directory)
        for number in range(entries):
            tag, kind, _, value = struct.unpack_from("<HHII", segment, directory + 2 + 12 * number)
            if tag not in _XR_TAGS:
                raise ImageError(f"has tag {tag} in a strip or tile of JPEG XR, which is not known: save it as LZW")
            if tag in found:
                found[tag] = value & (0xFFFF if kind == _SHORT else 0xFFFFFFFF)
    except struct.error:
        raise ImageError("is truncated: a strip or tile of JPEG XR ends inside its header") from None
    if (end := found[_XR_OFFSET] + found[_XR_BYTES]) > len(segment):
        raise ImageError(f"is truncated: a strip or tile of JPEG XR has {len(segment):,} of {end:,} bytes")
    admit(found[_XR_WIDTH], found[_XR_HEIGHT])


def _in_order(page: TiffPage, segment: bytes) -> bytes:
    """Return bytes whose highest bit comes first, of those that the page stores, or the other way round."""
    if page.fillorder != 2:  # as tifffile has it, whatever else stands there
        return segment
    import imagecodecs

    return bytes(imagecodecs.bitorder_decode(segment))
