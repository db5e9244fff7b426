"""JPEG. libjpeg-turbo through simplejpeg, which reports what libjpeg only warns of, and imagecodecs for the rest."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import cmyk_to_rgb, to_full_range
from pipelines.images.exif import Exif, dots_per_inch, read_exif
from pipelines.images.image import Admit, Raster
from pipelines.images.jpeg_stream import JPEG_LS, JpegStream
from pipelines.images.samples import Samples
from pipelines.images.tags import Tags

_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_UNITS = {1: 2, 2: 3}  # JFIF's unit of density -> EXIF's
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_FEW = 16  # bytes left over that are no sign of damage for certain
_WARNINGS = ("Corrupt JPEG data: ", "Premature end of ", "Inconsistent progression")  # how those of libjpeg begin
_UNUSUAL_SUBSAMPLING = "Could not determine subsampling"


@dataclass(slots=True)
class _Described:
    dpi: tuple[float, float] | None = None
    exif: Exif = field(default_factory=Exif)
    icc: dict[int, bytes] = field(default_factory=dict)


def decode_jpeg(data: bytes, admit: Admit) -> Raster:
    """Decode a JPEG file: grey, YCbCr, RGB, CMYK or YCCK, baseline, progressive or lossless, 8 to 16 bits, or JPEG-LS.

    libjpeg paints grey where image data are missing. Such a file is refused. A bit that changed and decodes all the
    same goes unnoticed: JPEG has no checksums.

    Raises:
        ImageError: the file is truncated or damaged, or has an unknown number of components.
    """
    stream = JpegStream.read(data)
    admit(stream.width, stream.height)
    if stream.components not in _COLOURS:
        raise ImageError(f"has {stream.components} colour components: 1 (grey), 3 (colour) or 4 (CMYK) are read")
    if not 2 <= stream.precision <= 16:
        raise ImageError(f"is damaged: its header says {stream.precision} bits per sample")
    stream.check_scans()
    stored, notes = _decode_stream(stream, data)
    if stream.stray:
        notes = (f"{stream.stray:,} bytes between the segments of the JPEG ignored", *notes)
    if stream.trailing:
        notes = (*notes, f"{stream.trailing:,} bytes after the end of the JPEG ignored")
    samples = to_full_range(stored, 2**stream.precision - 1)
    described = _describe(stream)
    icc = b"".join(described.icc[number] for number in sorted(described.icc)) or None
    if stream.components == 4:
        # 255 - ink, as Adobe's programs write it; so do others, and all readers expect it, with or without the marker.
        samples, note = cmyk_to_rgb(~samples, icc)
        notes = (note, *notes)
    return Raster(
        samples=samples,
        bit_depth=stream.precision,
        icc=icc,
        dpi=described.dpi or described.exif.dpi,
        orientation=described.exif.orientation,
        notes=notes,
        space=None if stream.components == 4 else described.exif.space,
        tags=Tags(exif=described.exif.kept),
    )


def check_image_data(data: bytes, admit: Admit) -> tuple[str, ...]:
    """Check that no image data are missing from a JPEG file that another decoder reads.

    Args:
        data: The file.
        admit: Called with its size before it is decoded.

    Returns:
        Notes on what is odd about it.

    Raises:
        ImageError: some are, or the file cannot be decoded.
    """
    stream = JpegStream.read(data)
    admit(stream.width, stream.height)
    stream.check_scans()
    return _decode_stream(stream, data)[1]


def _decode_stream(stream: JpegStream, data: bytes) -> tuple[Samples, tuple[str, ...]]:
    import imagecodecs

    if stream.process == JPEG_LS:
        if stream.components == 4:
            raise ImageError("has 4 colour components: of JPEG-LS 1 (grey) or 3 (colour) are read")
        return imagecodecs.jpegls_decode(data), ()  # CharLS refuses whatever ends early or is left over
    essential = stream.essential()
    if stream.precision == 8 and stream.components in _COLOURS and not stream.is_arithmetic:
        import simplejpeg

        colour = _COLOURS[stream.components]
        try:
            return simplejpeg.decode_jpeg(essential, colour), ()
        except ValueError as error:
            reason = str(error)
            if found := _LEFT_OVER.search(reason):
                note = _judge_left_over(int(found[1]), stream)
                return simplejpeg.decode_jpeg(essential, colour, strict=False), (note,)
            if reason.startswith(_WARNINGS):
                reason = reason.removeprefix(_WARNINGS[0])
                raise ImageError(f"is damaged: image data are missing or wrong ({reason})") from None
            if _UNUSUAL_SUBSAMPLING not in reason:
                raise
    samples = imagecodecs.jpeg8_decode(essential)
    # No binding reports the warnings for these. Arithmetic coding may leave out the zeros at the end of a scan.
    if not stream.is_arithmetic and not np.array_equal(imagecodecs.jpeg8_decode(stream.filled()), samples):
        raise ImageError("is damaged: image data are missing")
    return samples, ()


def _judge_left_over(count: int, stream: JpegStream) -> str:
    """Return a note on bytes that stand between the last pixel and the end of the image.

    Raises:
        ImageError: they are image data: the decoder has lost its place in them.
    """
    if stream.ends_in_padding(count):
        return "padding before the end of the JPEG ignored"
    if count > _FEW:
        raise ImageError(f"is damaged: {count:,} bytes of image data are left over after its last pixel")
    return "a few bytes are left over after the last pixel of the JPEG: a part of it may be wrong"


def _describe(stream: JpegStream) -> _Described:
    described = _Described()
    for marker, payload in stream.application:
        _read_application_data(described, marker, payload)
    return described


def _read_application_data(header: _Described, marker: int, payload: bytes) -> None:
    if marker == 0xE0 and payload.startswith(b"JFIF\x00") and len(payload) >= 12:
        unit, x, y = struct.unpack_from(">BHH", payload, 7)
        header.dpi = dots_per_inch(x, y, _UNITS.get(unit, 0))
    elif marker == 0xE1 and payload.startswith(b"Exif\x00\x00"):
        header.exif = read_exif(payload)
    elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\x00") and len(payload) > 14:
        header.icc[payload[12]] = payload[14:]
