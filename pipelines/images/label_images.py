"""Label images: which class each pixel is of. Grey or palette files whose values are classes, instances, or a mask."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base.safe_text import one_line, some_of
from pipelines.errors import DataError, ImageError
from pipelines.images import Image, ImageFile, list_images
from pipelines.images.convert import luma
from pipelines.images.exif import upright
from pipelines.images.find import stem_of
from pipelines.images.header import check_pixels, sniff
from pipelines.images.pillow import decode_bmp
from pipelines.images.png import decode_png
from pipelines.images.pnm import decode_pnm
from pipelines.images.read import decode_bytes, read_bytes
from pipelines.settings import settings

log = logging.getLogger(__name__)
EXACT = ("PNG", "TIFF", "BMP", "PNM")
EXACT_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".pnm", ".pgm", ".pbm", ".ppm"})
DECODERS = {"PNG": decode_png, "BMP": decode_bmp, "PNM": decode_pnm}
PNG_PALETTE, PHOTOMETRIC_PALETTE = 3, 3  # colour type of the one, photometric interpretation of the other
ORIENTATION = 274  # tag of TIFF
MARK = re.compile(r"_(mask|gt)$", re.IGNORECASE)  # behind the name of an image, in the name of its label image
FEW_VALUES = 16  # at most, of classes or instances, however they lie; more may be shades of grey

Labels = NDArray[np.uint8]


class UnclearError(ImageError):
    """A label image can be read, but what its values stand for is not clear."""


@dataclass(frozen=True, slots=True)
class LabelFolder:
    """Label images under the names of the images, whatever their suffix, or with `_mask` or `_gt` behind.

    Attributes:
        path: Of the folder.
        classes: Background included; with two, everything above zero (of masks: above half) is the other.
        files: By name without suffix.
        marked: Those with `_mask` or `_gt`, by the name without it.
    """

    path: Path
    classes: int
    files: Mapping[str, ImageFile]
    marked: Mapping[str, ImageFile]

    @classmethod
    def find(cls, path: Path, classes: int) -> LabelFolder:
        """List a folder. Of two files of one name the lossless one counts: the other is a copy of the image, say.

        Raises:
            FolderError: It holds no images.
            DataError: It holds two label images of one name.
        """
        files: dict[str, ImageFile] = {}
        marked: dict[str, ImageFile] = {}
        listed = list_images(path)
        listed.left_out.log()
        for file in sorted(listed.files, key=_may_change_values):
            stem = stem_of(file.relative)
            base = MARK.sub("", stem)
            for name, known in ((stem, files), (base, marked)):
                if known is marked and base == stem:
                    continue
                before = known.setdefault(name, file)
                if before is not file and _may_change_values(before) == _may_change_values(file):
                    raise DataError(f"{path} holds two label images of the name {name}: keep one")
        return cls(path, classes, files, marked)

    def named(self, stem: str) -> ImageFile | None:
        """The label image of what has this name without its suffix."""
        return self.marked.get(stem) or self.files.get(stem)

    def unused(self, stems: Collection[str]) -> list[str]:
        """Label images that belong to none of these names of images without their suffixes."""
        names = ((stem, file.relative) for stem, file in self.files.items())
        return sorted(relative for stem, relative in names if stem not in stems and MARK.sub("", stem) not in stems)

    def warn_of_unused(self, images: Iterable[ImageFile]) -> None:
        """Name label images that belong to none of these images, if there are some."""
        if names := self.unused({stem_of(image.relative) for image in images}):
            log.warning(
                "%d label images under %s belong to no image (%s): give each the name of its image, or NAME_mask, "
                "or NAME_gt", len(names), self.path, some_of(names),
            )  # fmt: skip

    def file_of(self, image: ImageFile) -> ImageFile | None:
        """The label image of an image."""
        found = self.named(stem_of(image.relative))
        try:
            is_itself = found is not None and found.path.samefile(image.path)
        except OSError:  # one of them is gone, or a link to nowhere: so they are not the same
            is_itself = False
        return None if is_itself else found

    def of(self, image: ImageFile, size: tuple[int, ...]) -> Labels:
        """Classes of the pixels of an image, (H, W).

        Args:
            image: The image.
            size: Its height and width.

        Raises:
            ImageError: There is no label image, or it is of no use.
        """
        file = self.file_of(image)
        if file is None:
            raise ImageError(f"has no label image of its name under {self.path}")
        labels = read_labels(file.path, self.classes)
        if labels.shape != tuple(size):
            (height, width), (rows, columns) = labels.shape, size
            raise ImageError(f"is {columns} x {rows}, its label image {file.relative} {width} x {height}")
        return labels

    def stamp(self, images: Sequence[ImageFile]) -> list[object]:
        """What the labels of some images depend on."""
        found = [self.file_of(image) for image in images]
        return [self.classes, *((str(file.path), file.size, file.mtime_ns) if file else None for file in found)]


def read_labels(path: Path, classes: int) -> Labels:
    """Read a label image, upright.

    Args:
        path: PNG, TIFF, BMP or PNM: its values count, or its palette's indices, not its colours. With two classes any
            image: of a palette of greys the greys count.
        classes: Background included; with two, everything above zero is the other class, and of a mask (whose pixels
            are mostly at one high value or at zero) everything above half of that.

    Returns:
        (H, W), values below `classes`.

    Raises:
        UnclearError: It is in colours, may have lost values, has some beyond the classes, or of two classes it is not
            clear which is which.
        ImageError: It cannot be read.
    """
    limit = settings().max_pixels
    try:
        data, sha256 = read_bytes(path, max_pixels=limit)
        if classes == 2 and sniff(data) not in EXACT:
            stored = _decoded(decode_bytes(data, sha256, max_pixels=limit), lossy=sniff(data) != "GIF")
        else:
            stored = _stored(data, partial(check_pixels, max_pixels=limit))
        values = upright(stored.values[..., None], stored.orientation)[..., 0]
        if classes == 2:
            return _foreground(stored._replace(values=values)).astype(np.uint8)
    except UnclearError as error:
        raise UnclearError(f"label image {path.name}: {error}") from None
    except ImageError as error:
        raise ImageError(f"label image {path.name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        raise ImageError(f"label image {path.name} cannot be read: {one_line(error)}") from None
    if values.min(initial=0) < 0 or values.max(initial=0) >= classes:
        raise UnclearError(
            f"label image {path.name} has values up to {values.max()}: with model.classes of {classes} names they end "
            f"at {classes - 1}"
        )
    return values.astype(np.uint8)


class _Stored(NamedTuple):
    """What a file holds for each pixel."""

    values: NDArray[Any]  # (H, W), as the file stores them
    palette: NDArray[Any] | None = None  # (n, 3) colours, where the values are indices of them
    orientation: int = 1
    lossy: bool = False


def _decoded(image: Image, *, lossy: bool) -> _Stored:
    """A file whose format may change values, or has colours alone: as it looks."""
    pixels = image.pixels
    if lossy:
        return _Stored((luma(pixels) if pixels.shape[2] == 3 else pixels)[..., 0], lossy=True)
    return _Stored(_grey(pixels))


def _stored(data: bytes, admit: Callable[[int, int], None]) -> _Stored:
    """What a lossless file holds."""
    kind = sniff(data)
    if kind not in EXACT:
        raise UnclearError(f"is {kind}, which may change values: save label images as {' or '.join(EXACT[:2])}")
    palette = None
    if kind == "TIFF":
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            if len(file.pages) > 1:
                raise UnclearError(f"holds {len(file.pages)} pages: give one label image for each image")
            page = file.pages.first
            admit(page.imagewidth, page.imagelength)
            samples = page.asarray()
            orientation = page.tags.valueof(ORIENTATION, default=1)
            if page.photometric == PHOTOMETRIC_PALETTE and page.colormap is not None:
                palette = page.colormap.T
    else:
        raster = DECODERS[kind](data, admit)
        samples, orientation = raster.samples, raster.orientation
        if kind == "PNG" and (data[25] == PNG_PALETTE or data[24] < 8):  # the decoder made colours or 8 bits of these
            samples, palette = _narrow_png(data)
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        colour, alpha = samples[..., :-1], samples[..., -1]
        if (colour == colour[0, 0]).all() and (alpha != alpha[0, 0]).any():
            raise UnclearError("has one colour, and differs in its transparency alone: fill what is transparent")
        samples = colour  # transparency says nothing of classes
    values = _grey(samples)
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise UnclearError("holds fractions: set each pixel to the number of its class")
    return _Stored(values, palette, orientation if orientation in range(1, 9) else 1)


def _narrow_png(data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Values of a PNG file of few bits, or indices of its palette, and that."""
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(io.BytesIO(data)) as image:
        values, colours = np.asarray(image), image.getpalette("RGB") if image.mode == "P" else None
    if colours is not None:
        return values, np.array(colours, np.uint8).reshape(-1, 3)
    # Pillow has spread 2 and 4 bits over 8
    return values // (255 // (2 ** data[24] - 1)) if data[24] in (2, 4) else values, None


def _grey(samples: NDArray[Any]) -> NDArray[Any]:
    """Samples (H, W) of (H, W) or (H, W, C).

    Raises:
        UnclearError: They are in colours.
    """
    if samples.ndim == 3 and (samples == samples[..., :1]).all():
        samples = samples[..., 0]  # grey, saved as colours
    if samples.ndim != 2:
        raise UnclearError("is in colours: set each pixel to the number of its class")
    return samples


def _foreground(stored: _Stored) -> NDArray[np.bool_]:
    """Which pixels are of the second of two classes.

    Masks are mostly at one high value or at zero, with soft edges perhaps; numbers of classes and instances are above
    zero, few, or alike at pixels side by side.

    Raises:
        UnclearError: It is not clear.
    """
    values = stored.values
    foreground: NDArray[np.bool_]
    if stored.palette is not None:
        if (greys := _greys(values, stored.palette)) is None:
            return _above_zero(values)
        values = greys
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    top = values.max(initial=0)
    high = values.dtype.kind == "u" and top > np.iinfo(values.dtype).max // 2
    if stored.lossy:
        if not high and top:
            raise UnclearError(f"is lossy, and its values end at {top}: save masks as {' or '.join(EXACT[:2])}")
        if not _is_black_and_white(values, top):
            raise UnclearError("holds shades of grey: a mask is black and white")
        foreground = values > top / 2
        return foreground
    if np.count_nonzero(values == top) > np.count_nonzero(values) / 2:
        soft = high
    elif _is_flat(values) or len(np.unique(values)) <= FEW_VALUES:
        soft = False
    elif high and _is_black_and_white(values, top):
        soft = True
    else:
        raise UnclearError(f"holds shades of grey up to {top}, neither a mask nor numbers of classes")
    foreground = values > top / 2 if soft else _above_zero(values)
    return foreground


def _is_black_and_white(values: NDArray[Any], top: float) -> bool:
    """Whether few values are in the middle between zero and the highest, as at the edges of a mask."""
    middle = np.count_nonzero((values >= top * 0.25) & (values <= top * 0.75)) if top else 0
    return bool(2 * middle <= np.count_nonzero(values > top * 0.75))


def _above_zero(values: NDArray[Any]) -> NDArray[np.bool_]:
    low, top = values.min(), values.max()
    if 0 < low < top:
        raise UnclearError(f"has no pixel of value 0, only {low} to {top}: give 0 to what is background")
    found: NDArray[np.bool_] = values > 0
    return found


def _greys(indices: NDArray[Any], palette: NDArray[Any]) -> NDArray[Any] | None:
    """What a palette image shows, where that is greys: programs that make files smaller order palettes as they like."""
    used = np.unique(indices)
    if not len(used) or used[-1] >= len(palette):
        return None
    colours = palette[used]
    if (colours != colours[:, :1]).any() or len(np.unique(colours[:, 0])) < len(used):
        return None
    greys = palette[:, 0].astype(np.uint8) if palette.max() < 256 else palette[:, 0]
    shown: NDArray[Any] = greys[indices]
    return shown


def _is_flat(values: NDArray[Any]) -> bool:
    """Whether three of four pixels above zero have the value of the next one, if that is above zero, too."""
    alike = both = 0
    for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
        inside = (one > 0) & (other > 0)
        both += int(np.count_nonzero(inside))
        alike += int(np.count_nonzero(inside & (one == other)))
    return 4 * alike >= 3 * both


def _may_change_values(file: ImageFile) -> bool:
    return file.path.suffix.lower() not in EXACT_SUFFIXES
