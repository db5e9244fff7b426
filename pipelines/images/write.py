"""Pixels to files: PNG, TIFF, WebP and JPEG, with alpha, profile and resolution, at the depth that they have."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.images.bits import ALL, shrink
from pipelines.images.colour_space import is_plain_srgb
from pipelines.images.convert import to_8_bits
from pipelines.images.exif import encode_exif
from pipelines.images.samples import Samples
from pipelines.images.tags import Tags
from pipelines.images.write_tiff import encode_tiff

FileKind = Literal["png", "tiff", "webp", "jpeg"]
SUFFIXES: dict[FileKind, str] = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
_OTHER_NAMES: dict[str, FileKind] = {"jpg": "jpeg", "tif": "tiff"}
QUALITY = 95  # of JPEG, with colour at full resolution

_METRES_PER_INCH = 0.0254
_HEADER_END = 33  # of a PNG: signature and IHDR
_WIDEST_WEBP, _WIDEST_JPEG = 16_383, 65_500  # pixels, by their encoders
_DENSEST = 1e8  # dots per inch, a quarter of a nanometre: more does not fit the numbers of the formats
_DENSEST_JPEG = 65_535
_MOST_EXIF_OF_JPEG = 65_500  # bytes


def file_kind(name: str) -> FileKind | None:
    """Return the kind of file that a name or suffix stands for; None where none does.

    >>> file_kind("JPG"), file_kind(".tif"), file_kind("gif")
    ('jpeg', 'tiff', None)
    """
    name = name.lower().removeprefix(".")
    return _OTHER_NAMES.get(name) or next((kind for kind in SUFFIXES if kind == name), None)


def encode_image(
    kind: FileKind,
    pixels: Samples,
    alpha: Samples | None = None,
    *,
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    bits: int = ALL,
    cicp: bytes | None = None,
    tags: Tags | None = None,
    palette: NDArray[np.uint8] | None = None,
) -> tuple[bytes, tuple[str, ...]]:
    """Make an image file.

    Args:
        kind: Of file. PNG, TIFF and WebP lose nothing that they can hold.
        pixels: (H, W, C), C = 1 grey or 3 RGB, uint8 or uint16.
        alpha: (H, W, 1) in the same dtype.
        icc: Profile that describes the pixels.
        dpi: Horizontal and vertical resolution.
        bits: Of 16-bit pixels, that they came from: kinds with 16 bits get the range of these again.
        cicp: Coded colour space, four bytes, which only PNG holds.
        tags: What else the file states.
        palette: (256, 3) colours that pixels, of one channel, are numbers of; only PNG and TIFF have them.

    Returns:
        The bytes of the file, and what it could not hold: WebP and JPEG have 8 bits, JPEG has no alpha, only TIFF has a
        georeference.

    Raises:
        ValueError: The image is larger than its format allows.
    """
    notes: list[str] = []
    pixels = pixels if kind in ("webp", "jpeg") else shrink(pixels, bits)
    if kind in ("webp", "jpeg") and pixels.dtype == np.uint16:
        notes.append(f"16 bits reduced to the 8 of {kind.upper()}")
        pixels, alpha = to_8_bits(pixels), None if alpha is None else to_8_bits(alpha)
    if kind == "jpeg" and alpha is not None:
        notes.append("transparency left out, which JPEG has not")
        alpha = None
    longest, limit = max(pixels.shape[:2]), {"webp": _WIDEST_WEBP, "jpeg": _WIDEST_JPEG}.get(kind)
    if limit is not None and longest > limit:
        msg = f"{longest:,} pixels are more along a side than the {limit:,} of {kind.upper()}: choose png or tiff"
        raise ValueError(msg)
    tags = tags or Tags()
    if dpi is not None and not all(0 < each < _DENSEST for each in dpi):
        dpi = None
    if kind == "jpeg" and dpi is not None and max(dpi) > _DENSEST_JPEG:
        notes.append(f"resolution left out: {max(dpi):,.0f} dots per inch are more than the {_DENSEST_JPEG:,} of JPEG")
        dpi = None
    notes += tags.notes
    if kind != "tiff" and tags.place is not None:
        notes.append(f"georeference left out, which {kind.upper()} has not: choose tiff")
    if kind != "png" and cicp is not None and icc is None:
        notes.append(f"coded colour space (cICP) left out, which {kind.upper()} has not: choose png")
    samples = np.ascontiguousarray(pixels if alpha is None else np.concatenate([pixels, alpha], axis=2))
    if kind == "tiff":
        return encode_tiff(samples, icc, dpi, tags, palette), tuple(notes)
    size = (samples.shape[1], samples.shape[0])
    exif = encode_exif(tags.exif, size, dpi, is_srgb=is_plain_srgb(icc, 3) or is_plain_srgb(icc, 1))
    if kind == "jpeg" and len(exif) > _MOST_EXIF_OF_JPEG:
        notes.append(f"EXIF left out: {len(exif):,} bytes are more than the {_MOST_EXIF_OF_JPEG:,} of JPEG")
        exif = b""
    if kind == "png":
        return _png(samples, icc, dpi, cicp, exif, palette, tags.software), tuple(notes)
    encode = {"webp": _webp, "jpeg": _jpeg}[kind]
    return encode(samples, icc, dpi, exif), tuple(notes)


def _png(
    samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None, cicp: bytes | None, exif: bytes,
    palette: NDArray[np.uint8] | None, software: str | None,
) -> bytes:  # fmt: skip
    chunks = b"" if cicp is None else _chunk(b"cICP", cicp)
    if is_plain_srgb(icc, 1 if samples.shape[2] <= 2 else 3):
        chunks += _chunk(b"sRGB", b"\0")  # perceptual, as photographs are meant
    elif icc is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi is not None:
        per_metre = [max(1, round(each / _METRES_PER_INCH)) for each in dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif:
        chunks += _chunk(b"eXIf", exif)
    if software is not None:
        chunks += _chunk(b"tEXt", b"Software\0" + software.encode("latin-1", "replace"))
    plain = _plain_png(samples) if palette is None else _by_pillow(samples, "png", palette=palette)
    if not chunks:
        return plain
    whole = memoryview(plain)  # slices of it are no copies, which count where the image has a hundred megapixels
    return b"".join((whole[:_HEADER_END], chunks, whole[_HEADER_END:]))


def _plain_png(samples: Samples) -> bytes:
    import imagecodecs

    # Its own guess of the room that is needed forgets the byte before every row, and the ends of 8 KiB chunks.
    room = samples.nbytes + samples.nbytes // 100 + 2 * samples.shape[0] + 4096
    # Level 4 takes a third of the time of the usual 6, for 4 % more bytes of a photograph.
    return bytes(imagecodecs.png_encode(samples[..., 0] if samples.shape[2] == 1 else samples, level=4, out=room))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _webp(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None, exif: bytes) -> bytes:
    del dpi  # WebP has no place for it but EXIF, which hardly anybody reads there
    return _by_pillow(samples, "webp", lossless=True, exact=True, icc_profile=icc or b"", exif=exif)


def _jpeg(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None, exif: bytes) -> bytes:
    options: dict[str, Any] = {} if dpi is None else {"dpi": (round(dpi[0]), round(dpi[1]))}
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    return _by_pillow(samples, "jpeg", quality=QUALITY, subsampling=0, icc_profile=icc, **options)


def _by_pillow(
    samples: Samples,
    kind: str,
    *,
    palette: NDArray[np.uint8] | None = None,
    **options: Any,  # noqa: ANN401 - as Pillow has them
) -> bytes:
    from PIL import Image

    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    picture = Image.fromarray(samples[..., 0] if mode == "L" else samples, mode)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
