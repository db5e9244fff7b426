"""Label images: which class each pixel is of. Grey or palette files whose values are classes, instances, or a mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError, ImageError
from pipelines.images import ImageFile, list_images
from pipelines.images.header import one_line
from pipelines.settings import settings

MOST_CLASSES = 256
LOSSY = frozenset({".jpg", ".jpeg", ".jfif"})

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelFolder:
    """Label images under the names of the images, whatever their suffix, or with `_mask` behind.

    Attributes:
        path: Of the folder.
        classes: Background included; with two, everything above zero (of masks from 0 to 255: above half) is the other.
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
        names = Counter(_stem(file.relative) for file in found)
        if double := next((name for name, count in names.items() if count > 1), None):
            raise DataError(f"{path} holds two label images of the name {double}: keep one")
        return cls(path, classes, {_stem(file.relative): file for file in found})

    def file_of(self, image: ImageFile) -> ImageFile | None:
        """The label image of an image."""
        stem = _stem(image.relative)
        return self.files.get(stem) or self.files.get(f"{stem}_mask")

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
        path: PNG, TIFF, ...: its values count, or its palette's indices, not its colours.
        classes: Background included; with two, everything above zero is the other class.

    Returns:
        (H, W), values below `classes`.

    Raises:
        ImageError: It cannot be read, is in colours, was saved with losses, or has values beyond the classes.
    """
    from PIL import Image

    if path.suffix.lower() in LOSSY:
        raise ImageError(f"label image {path.name}: JPEG changes values; save label images as PNG")
    try:
        with Image.open(path) as image:
            if image.width * image.height > settings().max_pixels:
                raise ImageError(
                    f"label image {path.name} is larger than KINTSUGI_MAX_PIXELS ({settings().max_pixels})"
                )
            values = np.asarray(image)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        raise ImageError(f"label image {path.name} cannot be read: {one_line(error)}") from None
    if values.ndim == 3 and all(
        (values[..., 0] == values[..., index]).all() for index in range(1, min(3, values.shape[2]))
    ):
        values = values[..., 0]  # grey, saved as colours
    if values.ndim != 2:
        raise ImageError(f"label image {path.name} is in colours: give the number of its class to each pixel instead")
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ImageError(f"label image {path.name} holds fractions: give the number of its class to each pixel instead")
    if classes == 2:
        is_mask = values.dtype == np.uint8 and values.max(initial=0) == 255
        return (values > (127 if is_mask else 0)).astype(np.uint8)
    if values.min(initial=0) < 0 or values.max(initial=0) >= classes:
        raise ImageError(
            f"label image {path.name} has values up to {values.max()}: with model.classes of {classes} names they end "
            f"at {classes - 1}"
        )
    return values.astype(np.uint8)


def _stem(relative: str) -> str:
    return str(PurePosixPath(relative).with_suffix(""))
