"""Small files that would take minutes or gigabytes: refused, or passed over, within seconds."""

from __future__ import annotations

import io
import struct
import time
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipelines.errors import ImageError
from pipelines.images.read import decode_bytes

SECONDS = 8  # of a processor; what is refused here took from ten seconds to hours


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(megabytes: int) -> bytes:
    """Many zeros, in a thousandth of the room."""
    deflate = zlib.compressobj(9)
    return b"".join(deflate.compress(bytes(2**20)) for _ in range(megabytes)) + deflate.flush()


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def jpeg_of_many_scans() -> bytes:
    data = saved(np.zeros((2000, 2000), np.uint8), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 10_000 + data[-2:]


def tiff_strip_that_is_larger_than_said() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((8, 8), np.uint8), compression="zlib")
    data, strip = bytearray(buffer.getvalue()), zeros(200)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        struct.pack_into("<I", data, tags["StripByteCounts"].valueoffset, len(strip))
        struct.pack_into("<I", data, tags["StripOffsets"].valueoffset, len(data))
    return bytes(data) + strip


def header_that_says(width: int, height: int) -> list[bytes]:
    """One file of each kind whose header can be rewritten in place."""
    small = np.zeros((9, 9), np.uint8)
    bmp, gif = bytearray(saved(small, "BMP")), bytearray(saved(small, "GIF"))
    struct.pack_into("<ii", bmp, 18, width, height)
    struct.pack_into("<HH", gif, 6, width, height)
    jpeg = bytearray(saved(small, "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, height, width)
    return [bytes(bmp), bytes(gif), bytes(jpeg), b"P5 %d %d 255\n" % (width, height)]


@pytest.mark.parametrize("which", range(4))
def test_a_header_that_lies_is_not_believed(which: int) -> None:
    with pytest.raises(ImageError, match=r"is 60000 x 60000 = 3,600 million pixels, above the limit of 250 million"):
        decode_bytes(header_that_says(60_000, 60_000)[which], "", max_pixels=250_000_000)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (jpeg_of_many_scans, "has more than 100 scans"),
        (lambda: png(chunk(b"IDAT", zeros(200))), "is damaged: it holds more image data than its pixels have"),
        (tiff_strip_that_is_larger_than_said, "cannot be decoded as TIFF: "),
        (lambda: b"P1 2 1\n" + b"#\n" * 5_000_000, "has 5,000,000 comments among its values"),
        (lambda: b"P5 " + b"#\n" * 5_000_000 + b"1 1 255\n\0", "the header of a P5 file should hold"),
        (lambda: b"P2 2 1 255\n" + b" " * 10_000_000, "is truncated: it holds 0 of 2 values"),
    ],
)
def test_what_would_take_long_is_refused_soon(make, reason: str) -> None:
    data, start = make(), time.process_time()
    with pytest.raises(ImageError, match=reason):
        decode_bytes(data, "", max_pixels=250_000_000)
    assert time.process_time() - start < SECONDS


def tiff_of_a_strip(strip: bytes, compression: str, channels: int) -> bytes:
    """64 x 64 pixels, whose only strip is a file of its own."""
    buffer = io.BytesIO()
    small = np.zeros((64, 64, channels), np.uint8)
    tifffile.imwrite(buffer, small if channels > 1 else small[..., 0], compression=compression, rowsperstrip=64)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        for name, value in (("StripByteCounts", len(strip)), ("StripOffsets", len(data))):
            struct.pack_into("<HII", data, tags[name].offset + 2, 4, 1, value)  # LONG, one
    return bytes(data) + strip


@pytest.mark.parametrize(
    ("compression", "encode"),
    [
        ("jpeg", imagecodecs.jpeg8_encode),
        ("jpeg2000", lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=40, codecformat="j2k")),
        ("jpegxl", imagecodecs.jpegxl_encode),
        ("jpegxr", imagecodecs.jpegxr_encode),
        ("webp", imagecodecs.webp_encode),
        ("png", imagecodecs.png_encode),
        ("lerc", imagecodecs.lerc_encode),
    ],
)
def test_a_strip_is_not_decoded_at_a_size_of_its_own(compression: str, encode) -> None:
    channels = 3 if compression == "webp" else 1
    large = np.full((2000, 3000, channels), 77, np.uint8)
    strip = bytes(encode(large if channels > 1 else large[..., 0]))
    with pytest.raises(
        ImageError, match=r"has a strip or tile that is 3000 x 2000 = 6 million pixels, above the limit"
    ):
        decode_bytes(tiff_of_a_strip(strip, compression, channels), "", max_pixels=1_000_000)


def gif_of_many_frames() -> bytes:
    data = saved(np.zeros((1, 1), np.uint8), "GIF")
    frame = data[data.rindex(b",\0\0\0\0") : -1]
    return data[:-1] + frame * 300_000 + b";"


def tiff_of_many_pages() -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((1, 1), np.uint8))
    data = bytearray(buffer.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    data += bytes(len(data) % 2)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data))
    start = len(data) + 6
    return bytes(data) + b"".join(struct.pack("<HI", 0, start + 6 * page) for page in range(1_000_000)) + bytes(6)


def tiff_of_large_directories() -> bytes:
    """Ten thousand pages, each of 65,535 entries that are those of the others, too."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((1, 1), np.uint8))
    data = bytearray(buffer.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    start = len(data) + len(data) % 2
    struct.pack_into("<I", data, first + 2 + 12 * entries, start)
    data += bytes(start - len(data) + 12 * 65_535 + 16 * 10_000 + 6)
    for page in range(10_000):
        struct.pack_into("<H", data, start + 16 * page, 65_535)
        struct.pack_into("<I", data, start + 16 * page + 2 + 12 * 65_535, start + 16 * page + 16)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (tiff_of_large_directories, "TIFF with 10000 or more pages: the first"),
        (gif_of_many_frames, "animated GIF: first of 10000 or more frames"),
        (tiff_of_many_pages, "TIFF with 10000 or more pages: the first"),
        (lambda: png(chunk(b"iCCP", b"x\0\0" + zeros(200)), chunk(b"IDAT", zlib.compress(bytes(2)))), None),
    ],
)
def test_what_follows_the_first_picture_is_passed_over(make, note: str | None) -> None:
    data, start = make(), time.process_time()
    image = decode_bytes(data, "", max_pixels=250_000_000)
    assert (image.pixels.shape[:2], image.note, image.icc) == ((1, 1), note, None)
    assert time.process_time() - start < SECONDS
