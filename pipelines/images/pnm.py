"""PBM, PGM and PPM, plain and raw. Written out here since Pillow reduces 16-bit PPM to 8 bits without a word."""

from __future__ import annotations

import re

import numpy as np

from pipelines.errors import ImageError
from pipelines.images.colour import to_full_range
from pipelines.images.image import Admit, Raster
from pipelines.images.samples import Samples

_BLANK = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_BITMAP_HEADER = re.compile(rb"P[14]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")
_HEADER = re.compile(rb"P[2356]" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})" + _BLANK + rb"(\d{1,9})\s")
_COMMENT = re.compile(rb"#[^\r\n]*")
_LONGEST_HEADER, _MOST_COMMENTS = 2**16, 10_000  # bytes; comments among values


def decode_pnm(data: bytes, admit: Admit) -> Raster:
    """Decode a Netpbm file of type P1 to P6 (the first image of a stream of several).

    Raises:
        ImageError: the header is damaged, or pixels are missing.

    Source:
        https://netpbm.sourceforge.net/doc/pnm.html
    """
    kind = int(data[1:2])
    header = (_BITMAP_HEADER if kind in {1, 4} else _HEADER).match(data[:_LONGEST_HEADER])
    if header is None:
        raise ImageError(f"is damaged: the header of a P{kind} file should hold its width, height and largest value")
    width, height, *rest = (int(number) for number in header.groups())
    largest = rest[0] if rest else 1
    if not 1 <= largest <= 65535:
        raise ImageError(f"is damaged: its header says that the largest value is {largest}, not 1 to 65535")
    admit(width, height)
    body = memoryview(data)[header.end() :]
    channels = 3 if kind in {3, 6} else 1
    samples: Samples
    if kind == 4:
        packed = _take(body, height * -(-width // 8), np.dtype(np.uint8)).reshape(height, -1)
        samples = 1 - np.unpackbits(packed, axis=1, count=width)  # 1 is black
    elif kind == 1:
        samples = 1 - _plain_bits(bytes(body), width * height)
    elif kind in {2, 3}:
        samples = _plain_numbers(bytes(body), width * height * channels)
    else:
        samples = _take(body, width * height * channels, np.dtype(">u2" if largest > 255 else np.uint8))
    samples = samples.reshape(height, width, channels)
    return Raster(samples=to_full_range(samples, largest), bit_depth=largest.bit_length())


def _without_comments(body: bytes) -> bytes:
    if (comments := body.count(b"#")) > _MOST_COMMENTS:
        raise ImageError(f"has {comments:,} comments among its values: save it again, as PNG or TIFF")
    return _COMMENT.sub(b"", body)


def _take(body: memoryview, count: int, dtype: np.dtype[np.generic]) -> Samples:
    if len(body) < count * dtype.itemsize:
        raise ImageError(f"is truncated: it holds {len(body):,} of {count * dtype.itemsize:,} bytes of pixels")
    return np.frombuffer(body, dtype, count)


def _plain_bits(body: bytes, count: int) -> Samples:
    digits = _without_comments(body).translate(None, b" \t\r\n\v\f")  # blanks between the digits are optional
    bits = _take(memoryview(digits), count, np.dtype(np.uint8)) - ord("0")
    if bits.max(initial=0) > 1:
        raise ImageError("is damaged: a plain bitmap holds something else than 0 and 1")
    return bits


def _plain_numbers(body: bytes, count: int) -> Samples:
    words = _without_comments(body).split(maxsplit=count)[:count]
    if len(words) < count:
        raise ImageError(f"is truncated: it holds {len(words):,} of {count:,} values")
    numbers = np.array(words).astype(np.int64)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) > 65535:
        raise ImageError("is damaged: a value is outside 0 to 65535")
    return numbers.astype(np.uint16)
