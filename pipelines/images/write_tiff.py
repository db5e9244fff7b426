"""Pixels to TIFF, with all that the file states: profile, resolution, pixel size, georeference, EXIF."""

from __future__ import annotations

import hashlib
import io
import struct
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.images.colour_space import is_plain_srgb
from pipelines.images.exif import DESCRIPTION, GPS, PHOTO, encode_directories
from pipelines.images.ifd import ASCII, LONG, RATIONAL, SRATIONAL, Directory, entry_places, layout_of
from pipelines.images.samples import Samples
from pipelines.images.tags import PixelSize, Tags

_LARGE = 2**31  # bytes, where offsets of 32 bits come near their end
_NAMES = {PHOTO: "ExifTag", GPS: "GPSTag"}  # by number, tifffile leaves them out


def encode_tiff(
    samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None, tags: Tags,
    palette: NDArray[np.uint8] | None = None,
) -> bytes:  # fmt: skip
    """Make a TIFF file.

    Args:
        samples: (H, W, C), C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        icc: Colour profile.
        dpi: Horizontal and vertical resolution.
        tags: What else it states.
        palette: (256, 3) colours that the samples, of one channel, are numbers of.
    """
    import tifffile

    channels = samples.shape[2]
    options: dict[str, Any] = {"photometric": "minisblack" if channels <= 2 else "rgb"}
    if palette is not None:
        options = {"photometric": "palette", "colormap": palette.T.astype(np.uint16) * np.uint16(257)}
    resolution, unit = dpi, "inch" if dpi else None
    main = dict(tags.exif.main)
    if tags.pixel is not None:
        main.pop(DESCRIPTION, None)
        options["description"] = _describe(tags.pixel, samples)
        if tags.pixel.stated == "ImageJ":
            resolution, unit = (1 / tags.pixel.x, 1 / tags.pixel.y), "none"
    is_big = samples.nbytes > _LARGE
    inside = [tag for tag, directory in ((PHOTO, tags.exif.photo), (GPS, tags.exif.gps)) if directory]
    place = {} if tags.place is None else tags.place.tags
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples[..., 0] if channels == 1 else samples,
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in {2, 4} else None,
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        resolution=resolution,
        resolutionunit=unit,
        rowsperstrip=64,
        metadata=None,
        bigtiff=is_big,
        byteorder="<",
        software=False,
        extratags=[*_extra(main), *_extra(place), *((_NAMES[tag], LONG, 1, 0, True) for tag in inside)],
        **options,
    )
    if inside:
        size = (samples.shape[1], samples.shape[0])
        _append(buffer, tags, size, is_srgb=is_plain_srgb(icc, 3) or is_plain_srgb(icc, 1), is_big=is_big)
    return buffer.getvalue()


def _describe(pixel: PixelSize, samples: Samples) -> bytes:
    """State the pixel size as the program does that stated it before."""
    if pixel.stated == "ImageJ":
        unit = pixel.unit.replace("\u00b5", r"\u00B5").encode("ascii", "replace").decode()
        return f"ImageJ=1.53t\nunit={unit}\n".encode()
    import tifffile

    height, width, channels = samples.shape
    same = uuid.UUID(hashlib.sha256(samples.data).hexdigest()[:32])  # the same pixels give the same file
    document = tifffile.OmeXml(UUID=f"urn:uuid:{same}", Creator="Kintsugi")
    document.addimage(
        dtype=samples.dtype.name, shape=samples.shape if channels > 1 else samples.shape[:2],
        storedshape=(1, 1, 1, height, width, channels), axes="YXS" if channels > 1 else "YX",
        PhysicalSizeX=pixel.x, PhysicalSizeXUnit=pixel.unit, PhysicalSizeY=pixel.y, PhysicalSizeYUnit=pixel.unit,
    )  # fmt: skip
    return document.tostring(declaration=True).encode()


def _extra(directory: Directory) -> list[tuple[int, int, int, Any, bool]]:
    """Return entries as tifffile takes them; bytes of text and of one-byte values pass as they are."""
    found: list[tuple[int, int, int, Any, bool]] = []
    for tag, entry in sorted(directory.items()):
        if len(entry.data) == entry.count:
            text = entry.data.rstrip(b"\x00") + b"\x00" if entry.kind == ASCII else entry.data
            found.append((tag, entry.kind, len(text), text, True))
        elif entry.kind not in {RATIONAL, SRATIONAL}:
            found.append((tag, entry.kind, entry.count, entry.numbers("<"), True))
    return found


def _append(buffer: io.BytesIO, tags: Tags, size: tuple[int, int], *, is_srgb: bool, is_big: bool) -> None:
    """Write the directories of EXIF behind the file, and point to them."""
    start = buffer.seek(0, io.SEEK_END)
    start += buffer.write(bytes(start % 2))
    whole = buffer.getbuffer()
    layout = layout_of(bytes(whole[:16]))
    assert layout is not None  # noqa: S101 - it was just written
    places = entry_places(whole, layout, layout.first)
    del whole  # it may not grow while somebody looks at it
    for tag, at, block in encode_directories(tags.exif, size, is_srgb=is_srgb, start=start, big=is_big):
        buffer.seek(places[tag])
        buffer.write(struct.pack("<I", at))
        buffer.seek(at)
        buffer.write(block)
