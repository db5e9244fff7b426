"""Label images: which class each pixel is of. Grey or palette files whose values are classes, instances, or a mask."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError, ImageError
from pipelines.images import ImageFile, list_images
from pipelines.images.header import check_pixels, one_line, sniff
from pipelines.images.pillow import decode_bmp
from pipelines.images.png import decode_png
from pipelines.images.pnm import decode_pnm
from pipelines.images.read import read_bytes
from pipelines.settings import settings

EXACT = ("PNG", "TIFF", "BMP", "PNM")
DECODERS = {"PNG": decode_png, "BMP": decode_bmp, "PNM": decode_pnm}
PNG_PALETTE, PHOTOMETRIC_PALETTE = 3, 3  # colour type of the one, photometric interpretation of the other

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelFolder:
    """Label images under the names of the images, whatever their suffix, or with `_mask` behind.

    Attributes:
        path: Of the folder.
        classes: Background included; with two, everything above zero (of masks: above half) is the other.
        files: By name without suffix.
    """

    path: Path
    classes: int
    files: Mapping[str, ImageFile]

    @classmethod
    def find(cls, path: Path, classes: int) -> LabelFolder:
        """List a folder.

        Raises:
            FolderError: It holds no images.
            DataError: It holds two label images of one name.
        """
        found = list_images(path).files
        names = Counter(stem_of(file.relative) for file in found)
        if double := next((name for name, count in names.items() if count > 1), None):
            raise DataError(f"{path} holds two label images of the name {double}: keep one")
        return cls(path, classes, {stem_of(file.relative): file for file in found})

    def file_of(self, image: ImageFile) -> ImageFile | None:
        """The label image of an image."""
        stem = stem_of(image.relative)
        found = self.files.get(f"{stem}_mask") or self.files.get(stem)
        return None if found is None or found.path.samefile(image.path) else found

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
    """Read a label image.

    Args:
        path: PNG, TIFF, BMP or PNM: its values count, or its palette's indices, not its colours.
        classes: Background included; with two, everything above zero is the other class, and of a mask (whose pixels
            are mostly at one high value or at zero) everything above half of that.

    Returns:
        (H, W), values below `classes`.

    Raises:
        ImageError: It cannot be read, is in colours, may have lost values, or has some beyond the classes.
    """
    limit = settings().max_pixels
    try:
        data, _ = read_bytes(path, max_pixels=limit)
        values, indices = _values(data, partial(check_pixels, max_pixels=limit))
    except ImageError as error:
        raise ImageError(f"label image {path.name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        raise ImageError(f"label image {path.name} cannot be read: {one_line(error)}") from None
    if classes == 2:
        return (values > _foreground_above(values, indices)).astype(np.uint8)
    if values.min(initial=0) < 0 or values.max(initial=0) >= classes:
        raise ImageError(
            f"label image {path.name} has values up to {values.max()}: with model.classes of {classes} names they end "
            f"at {classes - 1}"
        )
    return values.astype(np.uint8)


def _values(data: bytes, admit: Callable[[int, int], None]) -> tuple[NDArray[Any], bool]:
    """What a file holds for each pixel, (H, W), as it is; and whether that is the index of a palette."""
    kind = sniff(data)
    if kind not in EXACT:
        raise ImageError(f"is {kind}, which may change values: save label images as {' or '.join(EXACT[:2])}")
    # Of these our own decoder makes colours, or 8 bits.
    if kind == "PNG" and (data[25] == PNG_PALETTE or data[24] < 8):
        from PIL.PngImagePlugin import PngImageFile

        with PngImageFile(io.BytesIO(data)) as image:
            admit(*image.size)
            values, palette = np.asarray(image), image.mode == "P"
        if not palette and data[24] in (2, 4):  # Pillow has spread them over 8 bits
            values = values // (255 // (2 ** data[24] - 1))
        return values, palette
    if kind == "TIFF":
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            if len(file.pages) > 1:
                raise ImageError(f"holds {len(file.pages)} pages: give one label image for each image")
            page = file.pages.first
            admit(page.imagewidth, page.imagelength)
            samples = page.asarray()
            palette = page.photometric == PHOTOMETRIC_PALETTE
    else:
        samples, palette = DECODERS[kind](data, admit).samples, False
    if samples.ndim == 3 and samples.shape[2] in (2, 4):  # transparency says nothing of classes
        samples = samples[..., :-1]
    if samples.ndim == 3 and (samples == samples[..., :1]).all():
        samples = samples[..., 0]  # grey, saved as colours
    if samples.ndim != 2:
        raise ImageError("is in colours: give the number of its class to each pixel instead")
    if samples.dtype.kind == "f" and not np.array_equal(samples, np.rint(samples)):
        raise ImageError("holds fractions: give the number of its class to each pixel instead")
    return samples, palette


def _foreground_above(values: NDArray[Any], indices: bool) -> float:
    """Zero; half of the highest value where the file is a mask with soft edges.

    Instances have low numbers, or as many pixels at each: of a mask, more than half of what is not zero is at the top.
    """
    top = values.max(initial=0)
    if indices or values.dtype.kind != "u" or top <= np.iinfo(values.dtype).max // 2:
        return 0
    full = np.count_nonzero(values == top) > np.count_nonzero(values) / 2
    return float(top) / 2 if full else 0


def stem_of(relative: str) -> str:
    """A path without its suffix: an image and what is to be compared with it have the same."""
    return str(PurePosixPath(relative).with_suffix(""))
