"""Pixels to files: PNG, TIFF, WebP and JPEG, with alpha, profile and resolution, at the depth that they have."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Literal

import numpy as np

from pipelines.images.convert import to_8_bits
from pipelines.images.image import Samples

FileKind = Literal["png", "tiff", "webp", "jpeg"]
SUFFIXES: dict[FileKind, str] = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
_OTHER_NAMES: dict[str, FileKind] = {"jpg": "jpeg", "tif": "tiff"}
QUALITY = 95  # of JPEG, with colour at full resolution

_METRES_PER_INCH = 0.0254
_HEADER_END = 33  # of a PNG: signature and IHDR
_WIDEST_WEBP, _WIDEST_JPEG = 16_383, 65_500  # pixels, by their encoders
_DENSEST = 1e6  # dots per inch: more is nonsense, and does not fit the numbers of the formats
_LARGE_TIFF = 2**31  # bytes, where offsets of 32 bits come near their end


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
) -> tuple[bytes, tuple[str, ...]]:
    """Make an image file.

    Args:
        kind: Of file. PNG, TIFF and WebP lose nothing that they can hold.
        pixels: (H, W, C), C = 1 grey or 3 RGB, uint8 or uint16.
        alpha: (H, W, 1) in the same dtype.
        icc: Profile that describes the pixels.
        dpi: Horizontal and vertical resolution.

    Returns:
        The bytes of the file, and what it could not hold: WebP and JPEG have 8 bits, JPEG has no alpha.

    Raises:
        ValueError: The image is larger than its format allows.
    """
    notes: list[str] = []
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
    if dpi is not None and not all(0 < each < _DENSEST for each in dpi):
        dpi = None
    samples = pixels if alpha is None else np.concatenate([pixels, alpha], axis=2)
    encode = {"png": _png, "tiff": _tiff, "webp": _webp, "jpeg": _jpeg}[kind]
    return encode(np.ascontiguousarray(samples), icc, dpi), tuple(notes)


def _png(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    import imagecodecs

    # Its own guess of the room that is needed forgets the byte before every row, and the ends of 8 KiB chunks.
    room = samples.nbytes + samples.nbytes // 100 + 2 * samples.shape[0] + 4096
    # Level 4 takes a third of the time of the usual 6, for 4 % more bytes of a photograph.
    plain = bytes(imagecodecs.png_encode(samples[..., 0] if samples.shape[2] == 1 else samples, level=4, out=room))
    chunks = b""
    if icc is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi is not None:
        per_metre = [max(1, round(each / _METRES_PER_INCH)) for each in dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if not chunks:
        return plain
    whole = memoryview(plain)  # slices of it are no copies, which count where the image has a hundred megapixels
    return b"".join((whole[:_HEADER_END], chunks, whole[_HEADER_END:]))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    import tifffile

    grey, has_alpha = samples.shape[2] in {1, 2}, samples.shape[2] in {2, 4}
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples[..., 0] if samples.shape[2] == 1 else samples,
        photometric="minisblack" if grey else "rgb",
        planarconfig=None if samples.shape[2] == 1 else "contig",
        extrasamples=["unassalpha"] if has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        resolution=dpi,
        resolutionunit="inch" if dpi else None,
        rowsperstrip=64,
        metadata=None,
        bigtiff=samples.nbytes > _LARGE_TIFF,
    )
    return buffer.getvalue()


def _webp(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    del dpi  # WebP has no place for it but EXIF, which hardly anybody reads there
    return _by_pillow(samples, "webp", lossless=True, exact=True, icc_profile=icc or b"")


def _jpeg(samples: Samples, icc: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    options = {} if dpi is None else {"dpi": (round(dpi[0]), round(dpi[1]))}
    return _by_pillow(samples, "jpeg", quality=QUALITY, subsampling=0, icc_profile=icc, **options)


def _by_pillow(samples: Samples, kind: str, **options: object) -> bytes:
    from PIL import Image

    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if mode == "L" else samples, mode).save(buffer, kind, **options)
    return buffer.getvalue()
