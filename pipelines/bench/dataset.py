"""A data set in the MVTec layout, and its two halves of test images: one to compare settings on, one to report."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Literal

from pipelines.bench.methods import PUBLISHED, Published
from pipelines.errors import DataError, FolderError
from pipelines.evaluation.defect_masks import GOOD, find_masks
from pipelines.images import ImageFile, find_images, stem_of
from pipelines.models.model_file import sha256_of

Half = Literal["A", "B", "all"]
WHOLE_SET = 500  # good images: fewer are a sample, which published figures say nothing about


def check_layout(dataset: Path) -> None:
    """Refuse a folder that is not in the MVTec layout.

    Raises:
        FolderError: A part is missing; the message names it.
    """
    for part in (Path("train") / GOOD, Path("test") / GOOD):
        if not (dataset / part).is_dir():
            msg = f"{dataset} is not in the MVTec layout: there is no {part} in it (see docs/guides/anomalies.md)"
            raise FolderError(msg)


def fingerprint(dataset: Path) -> str:
    """Digest of the images' names and contents: results of others are not taken for results of these."""
    stamp = [
        (part, file.relative, sha256_of(file.path))
        for part in ("train/good", "test")
        for file in find_images(dataset / part)
    ]
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()


def half_of(file: Path) -> Literal["A", "B"]:
    """The half that a test image belongs to, by its bytes alone: the parity of their sha256's last digit."""
    return "B" if int(sha256_of(file)[-1], 16) % 2 else "A"


def view_of(dataset: Path, half: Half, folder: Path) -> Path:
    """The data set with the test images of one half only, as a folder of links.

    Args:
        dataset: In the MVTec layout.
        half: Which; "all" is the data set itself.
        folder: Where the links are made, anew each time.

    Raises:
        DataError: The half has no good image, or no defective one.
    """
    if half == "all":
        return dataset
    view = folder / f"half-{half}"
    shutil.rmtree(view, ignore_errors=True)
    test, masks = dataset / "test", find_masks(dataset)
    for file in find_images(test):
        if half_of(file.path) == half:
            _link(file, test, view / "test")
            if masks is not None and (mask := masks.named(stem_of(file.relative))) is not None:
                _link(mask, masks.path, view / "ground_truth")
    labels = {path.name for path in (view / "test").iterdir()} if (view / "test").is_dir() else set()
    if GOOD not in labels or labels == {GOOD}:
        lacking = "defective" if GOOD in labels else "good"
        msg = f"half {half} of {test} has no {lacking} image: use --half all, or a data set with more test images"
        raise DataError(msg)
    return view


def _link(file: ImageFile, folder: Path, view: Path) -> None:
    """Make a link to a file at the same place under another folder."""
    link = view / file.path.relative_to(folder)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(file.path.resolve())


def published_for(dataset: Path) -> tuple[Published, ...]:
    """Figures from the literature, where the folder holds a whole data set of that name."""
    good = sum(len(find_images(dataset / part / GOOD)) for part in ("train", "test"))
    return PUBLISHED.get(dataset.name, ()) if good >= WHOLE_SET else ()
