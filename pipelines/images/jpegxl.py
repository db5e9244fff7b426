"""JPEG XL, bare or in a container. libjxl through imagecodecs, which gives neither colour nor kinds of channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ImageError
from pipelines.images.colour import to_full_range, unpremultiply
from pipelines.images.colour_space import SRGB, stated_code
from pipelines.images.exif import read_exif
from pipelines.images.image import Admit, Raster, admit_channels
from pipelines.images.isobmff import boxes
from pipelines.images.jpeg import decode_jpeg
from pipelines.images.samples import Samples
from pipelines.images.tags import Tags

_CODESTREAM = b"\xff\x0a"
_MOST_BYTES = 65_536  # of the codestream that hold its header
_MOST_CHANNELS = 256  # beside the colours
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height
_REPLACED = (8, 10)  # numbers of bits that the header states in as many bits as twelve,
_TWELVE = 2  # which is this choice
_ALPHA, _SPOT, _BLACK, _FILTER = 0, 2, 4, 5  # kinds of channels beside the colours
_RGB, _GREY = 0, 1
_CUSTOM = 2  # white point or primaries


@dataclass(slots=True)
class Header:
    """What the header of a codestream says.

    Attributes:
        width: Pixels, as they are stored: an orientation may exchange the sides.
        height: The same.
        bits: Per sample.
        is_float: Whether samples are floating point numbers.
        bits_at: Which bit of the codestream chooses the number of bits.
        is_animated: Whether there may be several frames.
        is_premultiplied: Whether the colour is multiplied by the alpha.
        has_black: Whether there are inks.
        has_alpha: Whether there is transparency.
        others: Channels that are neither colour nor alpha.
        is_grey: Whether there is one colour.
        is_transformed: Whether the pixels are stored in a colour space of the format's own, which decoding leaves.
        has_profile: Whether an ICC profile states the colour.
        code: Code points of the colour otherwise: primaries, transfer; None for a colour space of the file's own.
    """

    width: int = 0
    height: int = 0
    bits: int = 8
    is_float: bool = False
    bits_at: int = 0
    is_animated: bool = False
    is_premultiplied: bool = False
    has_black: bool = False
    has_alpha: bool = False
    others: int = 0
    is_grey: bool = False
    is_transformed: bool = True
    has_profile: bool = False
    code: tuple[int, int] | None = (1, 13)


def decode_jpegxl(data: bytes, admit: Admit) -> Raster:
    """Decode a JPEG XL file of unsigned samples, the first frame of an animation.

    A JPEG file that was stored in it without loss is decoded as that file. libjxl applies the orientation.

    Raises:
        ImageError: The file is truncated or damaged, or holds floating point samples or inks.
        JpegxlError: libjxl cannot decode it.
    """
    codestream, described, header = admit_jpegxl(data, admit)
    if header.is_float:
        raise ImageError(f"has {header.bits}-bit floating point samples, which have no fixed range: save it as 16 bits")
    if header.has_black:
        raise ImageError("holds inks (CMYK): save it as RGB")

    import imagecodecs

    if b"jbrd" in described:
        return decode_jpeg(bytes(imagecodecs.jpegxl_decode_jpeg(data, numthreads=1)), admit)
    notes: tuple[str, ...] = ("animated JPEG XL: first frame",) if header.is_animated else ()
    depth = header.bits
    if is_linear := header.has_profile and header.is_transformed:
        if depth in _REPLACED:  # without the profile libjxl gives linear light: 8 bits have too few steps of it
            codestream, depth = _with_bits(codestream, header, _TWELVE), 12
        notes += ("colours converted from the embedded profile to sRGB",)
    elif header.has_profile:
        notes += ("its colour profile cannot be read: colours are approximate",)
    samples = imagecodecs.jpegxl_decode(codestream, index=0, numthreads=1)
    if header.is_grey and header.others and not header.has_alpha:
        samples = samples[0]  # (C, H, W) in this case, the others (H, W, C) without those that are dropped
    if sorted(samples.shape[:2]) != sorted((header.height, header.width)):  # an orientation may exchange them
        raise ImageError(f"is damaged: its header says {header.width} x {header.height}, its data {samples.shape}")
    if header.others:
        notes += (f"channels that are neither colour nor alpha ignored: {header.others}",)
    if is_linear:
        samples = _companded(samples, depth, 8 if header.bits <= 8 else 16)
    else:
        samples = to_full_range(samples, 2**depth - 1)
    exif = read_exif(described.get(b"Exif", b"")[4:])
    space, code = (SRGB, None) if is_linear else stated_code(header.code, "colour encoding of the JPEG XL file")
    return Raster(
        samples=unpremultiply(samples) if header.is_premultiplied else samples,
        bit_depth=header.bits,
        dpi=exif.dpi,
        notes=notes,
        space=space or (None if header.has_profile else exif.space),
        cicp=code,
        tags=Tags(exif=exif.kept),
    )


def admit_jpegxl(data: bytes, admit: Admit) -> tuple[bytes, dict[bytes, bytes], Header]:
    """Admit a file at the size that it states.

    Returns:
        Its codestream, the other boxes of its container by kind, and what its header says.

    Raises:
        ImageError: It is truncated or damaged, or too large.
    """
    codestream, described = (data, {}) if data.startswith(_CODESTREAM) else _unpacked(data)
    header = read_header(codestream)
    channels = (1 if header.is_grey else 3) + header.has_alpha + header.others
    admit_channels(admit, header.width, header.height, channels)
    return codestream, described, header


def read_header(codestream: bytes) -> Header:
    """Read the header of a codestream.

    Raises:
        ImageError: It is truncated or damaged.

    Source:
        ISO/IEC 18181-1, annexes C (size) and D (metadata).
    """
    bits, header = _Bits(codestream[2:_MOST_BYTES]), Header()
    header.width, header.height = _size(bits)
    if bits.take(1):  # all is as usual
        return header
    has_more = bits.take(1)
    if has_more:
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            _skip_preview(bits)
        header.is_animated = bool(bits.take(1))
        if header.is_animated:
            bits.number((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.number((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.number((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    header.bits_at = bits.place + 1
    header.bits, header.is_float = _depth(bits)
    bits.take(1)  # whether 16 bits suffice inside
    channels = bits.number((0, 0), (1, 0), (2, 4), (1, 12))
    if channels > _MOST_CHANNELS:
        raise ImageError(f"has {channels:,} channels beside the colours, above the limit of {_MOST_CHANNELS}")
    for _ in range(channels):
        kind, is_multiplied = _channel(bits)
        header.is_premultiplied |= is_multiplied
        header.has_black |= kind == _BLACK
        header.others += kind != _ALPHA or header.has_alpha
        header.has_alpha |= kind == _ALPHA
    header.is_transformed = bool(bits.take(1))
    if not bits.take(1):
        header.has_profile = bool(bits.take(1))
        header.is_grey, header.code = _colour(bits, header.has_profile)
    return header


class _Bits:
    """The bits of a codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._whole, self._size, self.place = int.from_bytes(data[:4096], "little"), 8 * min(len(data), 4096), 0

    def take(self, count: int) -> int:
        if self.place + count > self._size:
            raise ImageError("is truncated: ends inside its header")
        value = self._whole >> self.place & (1 << count) - 1
        self.place += count
        return value

    def number(self, *choices: tuple[int, int]) -> int:
        """Take a number: two bits choose its least value, and how many bits are added to that."""
        least, count = choices[self.take(2)]
        return least + self.take(count)

    def name(self) -> int:
        """Take a number that stands for a name."""
        return self.number((0, 0), (1, 0), (2, 4), (18, 6))


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if is_small else bits.number((1, 9), (1, 13), (1, 18), (1, 30))

    height, ratio = side(), bits.take(3)
    if not ratio:
        return side(), height
    above, below = _RATIOS[ratio - 1]
    return height * above // below, height


def _skip_preview(bits: _Bits) -> None:
    is_small = bits.take(1)
    choices = ((16, 0), (32, 0), (1, 5), (33, 9)) if is_small else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.number(*choices)
    if not bits.take(3):
        bits.number(*choices)


def _depth(bits: _Bits) -> tuple[int, bool]:
    is_float = bool(bits.take(1))
    count = (
        bits.number((32, 0), (16, 0), (24, 0), (1, 6)) if is_float else bits.number((8, 0), (10, 0), (12, 0), (1, 6))
    )
    if is_float:
        bits.take(4)
    return count, is_float


def _channel(bits: _Bits) -> tuple[int, bool]:
    """Return the kind of a channel, and whether colours are multiplied by it."""
    if bits.take(1):
        return _ALPHA, False
    kind = bits.name()
    _depth(bits)
    bits.number((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.number((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.take(8)  # its name
    if kind == _ALPHA:
        return kind, bool(bits.take(1))
    if kind == _SPOT:
        bits.take(4 * 16)
    elif kind == _FILTER:
        bits.number((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, False


def _colour(bits: _Bits, has_profile: bool) -> tuple[bool, tuple[int, int] | None]:
    """Return whether there is one colour, and the code points of primaries and transfer, where they are some."""
    space = bits.name()
    if has_profile or space not in (_RGB, _GREY):
        return space == _GREY, None
    white = bits.name()
    if white == _CUSTOM:
        _skip_places(bits, 1)
    primaries = bits.name() if space == _RGB else 1
    if primaries == _CUSTOM:
        _skip_places(bits, 3)
    has_gamma = bits.take(1)
    transfer = bits.take(24) if has_gamma else bits.name()
    if has_gamma or white != 1 or primaries == _CUSTOM:
        return space == _GREY, None
    return space == _GREY, (
        12 if primaries == 11 else primaries,
        transfer,
    )  # 11 with the white of daylight is Display P3


def _skip_places(bits: _Bits, count: int) -> None:
    for _ in range(2 * count):
        bits.number((0, 19), (524_288, 19), (1_048_576, 20), (2_097_152, 21))


def _unpacked(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the codestream of a container, and its other boxes by kind."""
    parts, described = list[bytes](), dict[bytes, bytes]()
    for kind, start, end in boxes(data, 0, len(data)):
        if kind in (b"jxlc", b"jxlp"):
            parts.append(data[start + (4 if kind == b"jxlp" else 0) : end])
        else:
            described.setdefault(kind, data[start:end])
    codestream = b"".join(parts)
    if not codestream.startswith(_CODESTREAM):
        raise ImageError("is damaged: no codestream in the JPEG XL file")
    return codestream, described


def _with_bits(codestream: bytes, header: Header, choice: int) -> bytes:
    """Return a codestream whose header states another number of bits: of what comes out, not of what is stored."""
    start = bytearray(codestream[:4096])
    for number in range(2):
        byte, bit = divmod(16 + header.bits_at + number, 8)
        start[byte] = start[byte] & ~(1 << bit) | (choice >> number & 1) << bit
    return bytes(start) + codestream[4096:]


def _companded(samples: NDArray[np.uint16], depth: int, bits: int) -> Samples:
    """Return linear light of `depth` bits with the curve of sRGB at `bits`; alpha stays linear."""
    curved = _curve(depth, bits)[samples]
    has_alpha = samples.ndim == 3 and samples.shape[2] in (2, 4)
    if has_alpha:
        top = 2**bits - 1
        curved[..., -1] = (samples[..., -1].astype(np.uint64) * top + (2**depth - 1) // 2) // (2**depth - 1)
    return curved


@cache
def _curve(depth: int, bits: int) -> Samples:
    light = np.arange(2**depth) / (2**depth - 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: Samples = np.rint(value * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return table
