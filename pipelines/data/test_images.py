"""No training on test images: known benchmarks, and every folder that was evaluated here, are kept apart by pixels.

An image is known by the sha256 of its decoded pixels, so that another file format, name or metadata does not hide it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.base.files import write_json
from pipelines.data.crop_images import Photos, pixel_digest
from pipelines.errors import DataError
from pipelines.images import Decoded, ImageFile
from pipelines.images.convert import luma
from pipelines.models.model_file import ModelFile
from pipelines.settings import settings

log = logging.getLogger(__name__)
DIGITS = 16  # of a digest that are kept: one chance in 10^19 of a wrong alarm for each pair
NAMED = 3  # images that a message names
MOST_TOLD = 10  # images whose reason to be left out has a line of its own


def known_benchmarks() -> dict[str, str]:
    """Digests of the test images of known benchmarks, in colour and as grey, with the benchmark's name."""
    document: dict[str, list[str]] = json.loads((files("pipelines") / "benchmarks.json").read_text(encoding="utf-8"))
    return {digest: name for name, digests in document.items() for digest in digests}


def digests_of_tested(pixels: NDArray[Any]) -> list[str]:
    """What a test image is known by: as it is, and of a colour image as grey, too."""
    both = [pixels] if pixels.shape[2] == 1 else [pixels, luma(pixels)]
    return [pixel_digest(each)[:DIGITS] for each in both]


def remember_test_images(folder: Path, digests: Iterable[str]) -> None:
    """Record, under KINTSUGI_HOME, the images of a folder that was evaluated on."""
    place = settings().home / "test-images"
    place.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    write_json(place / f"{name}.json", {"folder": str(folder.resolve()), "digests": sorted(set(digests))})


def warn_of_known(known: int, measured: int) -> None:
    """Say that a model was trained on some of the images that it is measured on, if so."""
    if known:
        log.warning("%d of %d images were trained on: these figures promise too much", known, measured)


class Tested:
    """The images of a folder that a model is measured on.

    Attributes:
        measured: How many of them.
    """

    def __init__(self, file: ModelFile) -> None:
        """Start with none.

        Args:
            file: The model. Images that it was trained on are told; none of its folder is kept from later trainings.
        """
        self._trained_on, self._own = file.trained_on, file.images_of_training
        self.measured = self._known = self._failed = 0
        self._digests: list[str] = []

    def add(self, image: Decoded) -> None:
        """Count an image that is measured."""
        digests = {pixel_digest(image.pixels), image.sha256}  # bundles of models that score know files, others pixels
        self.measured += 1
        self._known += not digests.isdisjoint(self._trained_on)
        if digests.isdisjoint(self._own):
            self._digests += digests_of_tested(image.pixels)

    def leave_out(self, file: ImageFile, reason: object) -> None:
        """Count an image that cannot be measured, and say why."""
        self._failed += 1
        if self._failed <= MOST_TOLD:
            log.warning("left out %s: %s", file.relative, reason)

    def finish(self, folder: Path) -> dict[str, int]:
        """Remember what the folder was tested on, and warn of figures that promise too much.

        Returns:
            How many images were measured, trained on all the same, and left out, as figures name them.
        """
        if (more := self._failed - MOST_TOLD) > 0:
            log.warning("left out %d more images", more)
        warn_of_known(self._known, self.measured)
        remember_test_images(folder, self._digests)
        return {"n_images": self.measured, "n_trained_on": self._known, "n_failed": self._failed}


def check_leakage(photos: Photos) -> None:
    """Refuse training images that are test images.

    Raises:
        DataError: Some are; the message says which, and of what.
    """
    test = known_benchmarks() | _evaluated()
    found: dict[str, list[str]] = {}
    for file, digest in zip(photos.files, photos.pixel_sha256, strict=True):
        if (name := test.get(digest[:DIGITS])) is not None:
            found.setdefault(name, []).append(file.relative)
    if not found:
        return
    which = "; ".join(
        f"{len(names)} of {name} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
        for name, names in found.items()
    )
    msg = (
        f"training images are test images: {which}. A figure on them would mean nothing: take them out of the folder. "
        f"What was evaluated here is listed in {settings().home / 'test-images'}: delete a file there to forget it"
    )
    raise DataError(msg)


def _evaluated() -> dict[str, str]:
    place = settings().home / "test-images"
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]
    return {digest: f"the test images in {each['folder']}" for each in documents for digest in each["digests"]}
