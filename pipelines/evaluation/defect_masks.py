"""Masks of defects, in the folder `ground_truth` beside `test`: found, read, and what is of no use named.

Belongs to the scoring side.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.base.safe_text import plural, some_of
from pipelines.errors import EmptyFolderError, ImageError
from pipelines.images import stem_of
from pipelines.images.label_images import LabelFolder, UnclearError, read_labels

log = logging.getLogger(__name__)
GOOD = "good"  # sub-folder of the images without defect

# What can be wrong, and how a person hears of one and of several such; "{}" stands for some names.
PROBLEMS = {
    "missing": (
        "image of a defect has no mask ({}): it is in no pixel figure",
        "images of defects have no mask ({}): they are in no pixel figure",
    ),
    "all_black": (
        "mask marks no pixel ({}): its image is in no pixel figure. Mark the defect",
        "masks mark no pixel ({}): their images are in no pixel figure. Mark the defects",
    ),
    "unreadable": (
        "mask cannot be read ({}): no pixel figure uses it",
        "masks cannot be read ({}): no pixel figure uses them",
    ),
    "unclear": ("mask is unclear ({}): no pixel figure uses it", "masks are unclear ({}): no pixel figure uses them"),
    "other_size": (
        "mask has another size than its image ({}): no pixel figure uses it",
        "masks have another size than their images ({}): no pixel figure uses them",
    ),
    "marked_good": (
        "image in test/good has a mask that marks pixels ({}): it counts as good all the same",
        "images in test/good have a mask that marks pixels ({}): they count as good all the same",
    ),
    "unused": (
        "mask belongs to no image ({}): a mask has the name of its image, or NAME_mask, or NAME_gt",
        "masks belong to no image ({}): a mask has the name of its image, or NAME_mask, or NAME_gt",
    ),
}


class Masks:
    """The masks of a data set in the MVTec layout."""

    def __init__(self, folder: Path) -> None:
        """List them.

        Args:
            folder: Holds `test/` and, if there are masks, `ground_truth/`.

        Raises:
            DataError: Two masks have one name.
            FolderError: `ground_truth` may not be read.
        """
        self._labels = find_masks(folder)
        self._stems: set[str] = set()
        self._found: dict[str, list[str]] = {name: [] for name in PROBLEMS}
        self._reasons: dict[str, str] = {}  # of a problem: why, of the first file that has it
        self._used = 0

    def of(self, relative: str, size: Sequence[int]) -> NDArray[np.bool_] | None:
        """The mask of an image, (H, W), true = abnormal; None where there is none of use, which `report` will name.

        Args:
            relative: The image's path under `test`, "/" between the parts.
            size: Its height and width.
        """
        stem, good = stem_of(relative), relative.split("/", 1)[0] == GOOD
        self._stems.add(stem)
        file = None if self._labels is None else self._labels.named(stem)
        if file is None:
            if not good:
                self._found["missing"].append(relative)
            return None
        try:
            mask = read_labels(file.path, 2) > 0
        except ImageError as error:
            problem = "unclear" if isinstance(error, UnclearError) else "unreadable"
            self._reasons.setdefault(problem, str(error))
            self._found[problem].append(file.relative)
            return None
        if good:
            self._found["marked_good"] += [file.relative] * bool(mask.any())
            return None
        if mask.shape != tuple(size):
            turned = " (turned)" if mask.shape == tuple(size)[::-1] else ""
            (rows, columns), (height, width) = mask.shape, size
            apart = f"{file.relative} is {columns} x {rows}, its image {width} x {height}{turned}"
            self._found["other_size"].append(apart)
            return None
        if not mask.any():
            self._found["all_black"].append(file.relative)
            return None
        self._used += 1
        return mask

    def report(self) -> dict[str, int]:
        """Warn once of each kind of problem, now that all images have asked for their masks.

        Returns:
            How many masks were used, and of each problem that there is, how many have it: see `PROBLEMS`.
        """
        if self._labels is not None:
            self._found["unused"] = self._labels.unused(self._stems)
        counts = Counter({name: len(names) for name, names in self._found.items() if names})
        for name in counts:
            text = plural(counts[name], *PROBLEMS[name]).format(some_of(self._found[name]))
            reason = self._reasons.get(name)
            log.warning("%s%s", text, f". {reason[0].upper()}{reason[1:]}" if reason else "")
        return {"used": self._used, **counts}


def find_masks(folder: Path) -> LabelFolder | None:
    """Return the masks of a data set in the MVTec layout; None if there are none.

    Raises:
        DataError: Two masks have one name.
        FolderError: `ground_truth` may not be read.
    """
    place = folder / "ground_truth"
    if not place.is_dir():
        return None
    try:
        return LabelFolder.find(place, 2)
    except EmptyFolderError:
        log.warning("%s holds no masks: there are no pixel figures", place)
        return None
