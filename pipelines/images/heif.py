"""HEIC and AVIF: photographs of telephones and of the web. libavif through imagecodecs, libheif through pillow-heif."""

from __future__ import annotations

import io
from typing import TypedDict, cast

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import to_full_range, unpremultiply
from pipelines.images.colour_space import ColourSpace, stated_code
from pipelines.images.exif import read_exif
from pipelines.images.hevc import has_whole_units
from pipelines.images.image import Admit, Raster
from pipelines.images.isobmff import Picture, read_picture
from pipelines.images.pillow import raster_of
from pipelines.images.tags import Tags

_PREMULTIPLIED = "a"  # at the end of pillow-heif's mode
_MOST_BITS = 16
_MOST_BITS_OF_AV1 = 12
# Data that a disk or a transfer lost are zero in whole blocks, of 512 bytes at least. AV1 has no long runs of zeros,
# not in pictures of one colour either (7 at most were seen); libavif decodes them to something.
_ZEROS = bytes(256)
_LOST = "is damaged: a part of its image data is zero or missing"


def decode_avif(data: bytes, admit: Admit) -> Raster:
    """Decode an AVIF file of 8, 10 or 12 bits, the first frame of a sequence.

    Turns, mirrors and the clean aperture are those of the container: EXIF's orientation has no meaning there.

    Raises:
        ImageError: The file is truncated or damaged.
        AvifError: libavif cannot decode it.
    """
    picture = read_picture(data)
    admit(picture.width, picture.height)
    if not picture.is_still:
        return _frame(data, picture, admit)
    if picture.frames:
        data = data[:8] + b"avif" + data[12:]  # the brand of a still picture: libavif takes it, not the sequence
    if any(_ZEROS in each.data for each in picture.coded):
        raise ImageError(_LOST)

    import imagecodecs

    # Asked for one frame of several, imagecodecs writes beyond its memory: it is given still pictures alone.
    samples = imagecodecs.avif_decode(data, numthreads=1)
    if samples.shape[:2] != (picture.height, picture.width):
        raise ImageError(
            f"is damaged: its header says {picture.width} x {picture.height}, "
            f"its data {samples.shape[1]} x {samples.shape[0]}"
        )
    if picture.crop is not None:
        left, top, width, height = picture.crop
        samples = samples[top : top + height, left : left + width]
    depth = picture.bit_depth or 8 * samples.dtype.itemsize
    if depth > _MOST_BITS_OF_AV1:  # values of 10 bits would be taken for nearly black ones of 16
        raise ImageError("is damaged: it does not say how many bits its samples have")
    return Raster(
        samples=to_full_range(samples, 2**depth - 1),
        bit_depth=depth,
        orientation=picture.orientation,
        notes=_notes("AVIF", picture),
        **_stated(picture),
    )


def decode_heic(data: bytes, admit: Admit) -> Raster:
    """Decode the primary picture of a HEIC or HEIF file of 8, 10 or 12 bits.

    libheif applies turns, mirrors and the clean aperture; EXIF's orientation has no meaning there.

    Raises:
        ImageError: The file is truncated or damaged, or the package that reads it is not installed.
    """
    picture = read_picture(data)
    admit(picture.width, picture.height)
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            "is a HEIC image, and pillow-heif is not installed, which reads them: pip install pillow-heif"
        ) from None
    if not all(has_whole_units(*each) for each in picture.coded if each.length_size):
        raise ImageError(_LOST)
    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    admit(*image.size)
    depth = cast("int", image.info["bit_depth"])
    if not 1 <= depth <= _MOST_BITS:
        raise ImageError(f"has {depth} bits per sample: up to {_MOST_BITS} are read")
    samples = np.asarray(image)[:, : image.size[0]]
    samples = to_full_range(samples, 2**depth - 1)
    if image.mode.split(";")[0].endswith(_PREMULTIPLIED):
        samples = unpremultiply(samples)
    return Raster(
        samples=samples,
        bit_depth=depth,
        notes=_notes("HEIC", picture),
        **_stated(picture),
    )


class _Stated(TypedDict):
    icc: bytes | None
    dpi: tuple[float, float] | None
    space: ColourSpace | None
    cicp: bytes | None
    tags: Tags


def _stated(picture: Picture) -> _Stated:
    """Return what the container states of colour and of the photograph; a profile counts more than a code."""
    exif = read_exif(picture.exif)
    space, code = stated_code(None if picture.icc else picture.nclx, "nclx code of the file")
    return {
        "icc": picture.icc, "dpi": exif.dpi, "space": space or exif.space, "cicp": code, "tags": Tags(exif=exif.kept),
    }  # fmt: skip


def _frame(data: bytes, picture: Picture, admit: Admit) -> Raster:
    """Decode the first frame of a sequence that has no still picture beside it, at 8 bits."""
    from PIL.AvifImagePlugin import AvifImageFile

    notes = _notes("AVIF", picture)
    if picture.bit_depth > 8:
        notes += (f"{picture.bit_depth} bits reduced to 8",)
    return raster_of(AvifImageFile(io.BytesIO(data)), admit, notes)


def _notes(kind: str, picture: Picture) -> tuple[str, ...]:
    if picture.frames:
        taken = "the picture beside them" if picture.is_still else "the first"
        return (f"{kind} image sequence of {picture.frames} frames: {taken}",)
    return (f"{kind} file of {picture.layers} images: the primary one",) if picture.layers > 1 else ()
