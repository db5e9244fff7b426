"""The images that a model is measured on: one loop for every kind of model, and no training on them later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pipelines.base.progress import progress
from pipelines.data.known_images import digests_of_tested, remember_test_images
from pipelines.errors import DataError, ImageError
from pipelines.images import Decoded, Failed, ImageFile
from pipelines.images.convert import pixel_digest
from pipelines.models.model_file import ModelFile

log = logging.getLogger(__name__)
MOST_REASONS = 10  # images whose reason to be left out has a line of its own

_Figures = TypeVar("_Figures")


class EvaluatedImages:
    """The images of a folder that a model is measured on.

    Attributes:
        refused: How many images were of no use, and are in no count of the figures.
    """

    def __init__(self, file: ModelFile, folder: Path, files: Sequence[ImageFile]) -> None:
        """Start with no image measured.

        Args:
            file: The model. A warning counts the images that it was trained on; none of the images that it came from
                is kept from later trainings.
            folder: What was asked for.
            files: The images in it.
        """
        self._trained_on, self._own = file.trained_on, file.images_of_training
        self._folder, self._files = folder, files
        self._measured = self._known = self._failed = self.refused = 0
        self._digests: list[str] = []

    def measure(
        self,
        images: Iterable[Decoded | Failed],
        measure: Callable[[Decoded], _Figures],
        *,
        accept: Callable[[Decoded], bool] = lambda _: True,
        what: str = "evaluate",
    ) -> list[_Figures]:
        """Measure all images with progress; leave out what cannot be read or measured, and log why.

        Args:
            images: The decoded files.
            measure: Returns the figures of an image; raises `ImageError` if there are none.
            accept: Returns whether an image is of use.
            what: Title of the progress.

        Returns:
            The figures of the images that were measured, in their order.
        """
        found = []
        with progress(log, what, len(self._files), "images") as advance:
            for image in images:
                try:
                    if isinstance(image, Failed):
                        raise ImageError(image.reason)
                    if accept(image):
                        found.append(measure(image))
                        self._count(image)
                    else:
                        self.refused += 1
                except ImageError as error:
                    self._leave_out(image.file, error)
                advance()
        return found

    def finish(self) -> dict[str, int]:
        """Remember what the folder was tested on, and warn of figures that promise too much.

        Returns:
            How many images were measured, trained on all the same, and left out, as figures name them.

        Raises:
            DataError: No image was measured.
        """
        if not self._measured:
            msg = f"none of {len(self._files)} images under {self._folder} can be measured; the reasons are above"
            raise DataError(msg)
        if (more := self._failed - MOST_REASONS) > 0:
            log.warning("left out %d more images", more)
        warn_of_known(self._known, self._measured)
        remember_test_images(self._folder, self._digests)
        return {"n_images": self._measured, "n_trained_on": self._known, "n_failed": self._failed}

    def _count(self, image: Decoded) -> None:
        digests = {pixel_digest(image.pixels), image.sha256}  # bundles of models that score know files, others pixels
        self._measured += 1
        self._known += not digests.isdisjoint(self._trained_on)
        if digests.isdisjoint(self._own):
            self._digests += digests_of_tested(image.pixels)

    def _leave_out(self, file: ImageFile, reason: object) -> None:
        self._failed += 1
        if self._failed <= MOST_REASONS:
            log.warning("left out %s: %s", file.relative, reason)


def warn_of_known(known: int, measured: int) -> None:
    """Warn that a model was trained on some of the images that it is measured on, if so."""
    if known:
        log.warning("%d of %d images were trained on: these figures are too good", known, measured)
