"""What a decoder hands over (`Raster`), and what everybody else sees (`Image`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipelines.errors import ImageError
from pipelines.images.samples import Samples

if TYPE_CHECKING:
    from pipelines.images.colour_space import ColourSpace
    from pipelines.images.tags import Tags


# Called by every decoder with (width, height) before it decodes the first pixel; raises ImageError where that is too
# much.
Admit: TypeAlias = Callable[[int, int], None]


_CHANNELS = 4  # that the largest number of pixels allows for


def admit_channels(admit: Admit, width: int, height: int, channels: int) -> None:
    """Admit an image with all its channels; decoders decode those too that are dropped later.

    Raises:
        ImageError: It has too many pixels, or too many channels for its size.
    """
    admit(width, height)
    if channels > _CHANNELS:
        try:
            admit(width, height * -(-channels // _CHANNELS))
        except ImageError as error:
            raise ImageError(f"has {channels:,} channels, too many for its size: it {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """One decoded picture as the file stores it: upright only once `orientation` has been applied.

    Attributes:
        samples: (H, W) or (H, W, C) with C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha; the full range of its dtype.
        bit_depth: Bits per sample in the file.
        icc: Embedded ICC profile, whatever it describes.
        space: Colour space that the file states otherwise: it counts where there is no profile of use.
        cicp: Coded colour space of PNG, HEIF or AVIF, four bytes (primaries, transfer, matrix, full range).
        dpi: (horizontal, vertical) resolution in dots per inch.
        orientation: EXIF orientation, 1 to 8.
        notes: What a person should know about the decoding.
        tags: What else the file states that stays true of a result.
    """

    samples: Samples
    bit_depth: int
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    notes: tuple[str, ...] = ()
    space: ColourSpace | None = None
    cicp: bytes | None = None
    tags: Tags | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One image file, decoded and upright.

    Attributes:
        pixels: (H, W, C), C = 1 grey or 3 RGB, using the full range of uint8 or uint16.
        alpha: (H, W, 1) in the dtype of `pixels`, 0 = transparent; None where the file has no alpha.
        bit_depth: Bits per sample in the file: 1, 8 or 16, rarely 2, 4 or 9 to 15 (those are scaled to 8 or 16).
        sha256: Digest of the file's bytes, hexadecimal.
        icc: ICC profile that describes `pixels`: the file's, or one of the colour space that it states otherwise; None
            where it states none, or has a profile of another colour space.
        dpi: (horizontal, vertical) resolution in dots per inch, of the upright image.
        note: What a person should know, such as "animated GIF: first of 12 frames".
        icc_source: What `icc` was made of, such as "gAMA and cHRM chunks"; None where it is the file's own, or sRGB.
        cicp: Coded colour space, four bytes, which PNG can hold and counts more than a profile.
        tags: What else the file states that stays true of a result, of the upright image.
    """

    pixels: Samples
    alpha: Samples | None
    bit_depth: int
    sha256: str
    icc: bytes | None
    dpi: tuple[float, float] | None
    note: str | None
    icc_source: str | None = None
    cicp: bytes | None = None
    tags: Tags | None = None
