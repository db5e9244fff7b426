"""No training on test images: known benchmarks, and every folder that was evaluated here, are kept apart by pixels.

An image is known by the sha256 of its decoded pixels, so that another file format, name or metadata does not hide it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.base.files import write_json
from pipelines.data.crop_images import CropImages
from pipelines.errors import DataError
from pipelines.images.convert import luma, pixel_digest
from pipelines.settings import settings

DIGITS = 16  # of a digest that are kept: one chance in 10^19 of a wrong alarm for each pair
NAMED = 3  # images that a message names


def known_benchmarks() -> dict[str, str]:
    """Digests of the test images of known benchmarks, in colour and as grey, with the benchmark's name."""
    document: dict[str, list[str]] = json.loads(
        (files("pipelines.data") / "benchmarks.json").read_text(encoding="utf-8")
    )
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


def check_leakage(images: CropImages) -> None:
    """Refuse training images that are test images.

    Raises:
        DataError: Some are; the message says which, and of what.
    """
    test = known_benchmarks() | _evaluated()
    found: dict[str, list[str]] = {}
    for file, digest in zip(images.files, images.pixel_sha256, strict=True):
        if (name := test.get(digest[:DIGITS])) is not None:
            found.setdefault(name, []).append(file.relative)
    if not found:
        return
    which = "; ".join(
        f"{len(names)} of {name} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
        for name, names in found.items()
    )
    msg = (
        f"training images are test images: {which}. Figures on them are meaningless: take them out of the folder. "
        f"What was evaluated here is listed in {settings().home / 'test-images'}: delete a file there to forget it"
    )
    raise DataError(msg)


def _evaluated() -> dict[str, str]:
    place = settings().home / "test-images"
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]
    return {digest: f"the test images in {each['folder']}" for each in documents for digest in each["digests"]}
