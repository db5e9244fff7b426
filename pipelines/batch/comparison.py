"""What results of a run are compared with, where the truth is known: clean images, or true labels, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipelines.batch.output_names import by_name
from pipelines.batch.schema import Row
from pipelines.errors import ImageError
from pipelines.images import ImageFile, list_images, read_image, stem_of
from pipelines.images.bits import ALL, bits_of, is_deep, stretch
from pipelines.images.camera_bits import in_all_bits
from pipelines.images.hidden import fill_hidden
from pipelines.images.label_images import LabelFolder, read_labels
from pipelines.images.samples import Samples
from pipelines.models.model_file import ColorizationMetadata, RestorationMetadata
from pipelines.restoration.quality import compare, compare_labels, enlarge
from pipelines.settings import settings


class Reference(Protocol):
    """Images or labels as they should have come out."""

    def compare(self, row: Row, out: Path) -> None:
        """Add figures to the row of a result under an output folder; a note where its reference is of no use."""


class CleanImages:
    """PSNR and SSIM against the clean image of the same name, with or without its suffix."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[ImageFile],
        metadata: RestorationMetadata | ColorizationMetadata,
        bits: int = ALL,
    ) -> None:
        """List a folder.

        Args:
            folder: Of the clean images.
            files: The images that were mended.
            metadata: Of the model.
            bits: That 16-bit files fill, as they were mended.

        Raises:
            FolderError: It holds no images.
        """
        self._clean, self._given = by_name(list_images(folder).files), {file.relative: file.path for file in files}
        self._metadata, self._bits = metadata, bits

    def compare(self, row: Row, out: Path) -> None:
        """Add psnr and ssim, and those of the image itself."""
        twin = self._clean.get(row["path"]) or self._clean.get(stem_of(row["path"]))
        if twin is None:
            return
        metadata, limit = self._metadata, settings().max_pixels
        luma, border = (metadata.luma, metadata.border) if isinstance(metadata, RestorationMetadata) else (False, 0)
        try:
            pair = (
                fill_hidden(read_image(twin.path, max_pixels=limit)),  # as what was mended
                read_image(out / row["output"], max_pixels=limit * metadata.scale**2),
            )
            bits = max(bits_of(image, self._bits) if is_deep(image) else 0 for image in pair) or ALL
            clean, made = (stretch(image.pixels, bits) if is_deep(image) else image.pixels for image in pair)
            height, width = (length // metadata.scale * metadata.scale for length in clean.shape[:2])
            row |= compare(made, clean[:height, :width], luma=luma, border=border)
            if isinstance(metadata, RestorationMetadata):
                row |= self._compare_input(row, clean[:height, :width], luma=luma, border=border)
            problem = None if row["psnr"] is not None else f"is of another size: {width} x {height}"
        except ImageError as error:
            problem = str(error)
        if problem is not None:
            _note(row, f"the clean image {twin.relative} {problem}")

    def _compare_input(self, row: Row, clean: Samples, *, luma: bool, border: int) -> dict[str, float | None]:
        """What the image was worth before, enlarged as the papers do where the result is larger."""
        image = read_image(self._given[row["path"]], max_pixels=settings().max_pixels)
        given = in_all_bits(fill_hidden(image), self._bits)[0].pixels
        found = compare(enlarge(given, self._metadata.scale), clean, luma=luma, border=border)
        return {f"input_{name}": value for name, value in found.items()}


class TrueLabels:
    """Dice and IoU against the label image of the same name."""

    def __init__(self, folder: Path, images: Path, classes: int) -> None:
        """List a folder.

        Args:
            folder: Of the label images.
            images: The folder of the images.
            classes: Background included.

        Raises:
            FolderError: It holds no images.
            DataError: It holds two label images of one name.
        """
        self._labels, self._images = LabelFolder.find(folder, classes), images

    def compare(self, row: Row, out: Path) -> None:
        """Add dice and iou."""
        image = ImageFile(self._images / row["path"], row["path"], 0, 0)
        if self._labels.file_of(image) is None:
            return
        try:
            true = self._labels.of(image, (row["height"], row["width"]))
            made = read_labels(out / row["output"], self._labels.classes)
            row |= compare_labels(made, true, self._labels.classes)
        except ImageError as error:
            _note(row, str(error))


def _note(row: Row, text: str) -> None:
    row["note"] = "; ".join(filter(None, (row["note"], text)))
