"""Thresholds by group: a sub-folder of images is judged by calibration images of the same sub-folder.

Images of different cameras, products or shifts score differently. One threshold for all then promises its rate over
the mixture alone: some groups have many false alarms, others hide their defects. A group with calibration images
enough has the promise for itself; all others are one more group together, of which the same holds, so that the promise
over all images is kept too (Mondrian conformal prediction: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random
World" (2005), section 4.5).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.calibration import Calibration
from pipelines.errors import CalibrationError
from pipelines.text import printable


def group_of(relative: str, level: int = 0) -> str:
    """The group of an image: a sub-folder of its path.

    Args:
        relative: Path below the folder, with "/".
        level: Which of the sub-folders; 0 is the first.

    >>> group_of("camera 2/a/1.png"), group_of("1.png"), group_of("good/camera 2/1.png", level=1)
    ('camera 2', '', 'camera 2')
    """
    folders = relative.split("/")[:-1]
    return folders[level] if level < len(folders) else ""


@dataclass(frozen=True, slots=True)
class GroupThresholds:
    """Which groups have a threshold of their own, and what all other images are judged by.

    Attributes:
        rate: The promised false-alarm rate.
        level: Which sub-folder of a path is the group.
        own: Calibrations of the groups that can promise the rate.
        thresholds: The same groups' thresholds.
        few: Calibration images of the other groups.
        rest: What images of other groups, and of groups that calibration never saw, are judged by together: the
            calibration images of the groups in `few`, or all where these cannot promise the rate.
        rest_threshold: Its threshold.
        promised: Whether the rate is promised for them, because `rest` is of their own kind.
    """

    rate: float
    level: int
    own: dict[str, Calibration]
    thresholds: dict[str, float]
    few: dict[str, int]
    rest: Calibration
    rest_threshold: float
    promised: bool

    @classmethod
    def of(cls, calibration: Calibration, rate: float, *, level: int = 0) -> GroupThresholds:
        """Give every group that can promise the rate, 1/(n + 1) <= rate, its own threshold, and all others one.

        Raises:
            CalibrationError: All calibration images together are too few for that rate.
        """
        own: dict[str, Calibration] = {}
        thresholds: dict[str, float] = {}
        few: dict[str, int] = {}
        for name in calibration.groups:
            group = calibration.of_group(name)
            assert group is not None  # noqa: S101 - for the type checker: it is one of its groups
            try:
                thresholds[name] = group.threshold(rate)
                own[name] = group
            except CalibrationError:
                few[name] = group.n
        rest = calibration.of_groups(few) if own else calibration
        promised = rest is not None and rest.smallest_rate <= rate
        if rest is None or not promised:
            rest = calibration
        return cls(rate, level, own, thresholds, few, rest, rest.threshold(rate), promised)

    def name(self, relative: str) -> str | None:
        """The group whose threshold an image is judged by; None for the others'."""
        group = group_of(relative, self.level)
        return group if group in self.own else None

    @property
    def needed(self) -> int:
        """Calibration images that a group needs for the rate."""
        return math.ceil(1 / self.rate - 1e-9) - 1

    def describe(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """What became of each group, of calibration and of these images: as records for run.json."""
        images = Counter(group_of(path, self.level) for path in paths)
        records = []
        for name in sorted({*self.own, *self.few, *images}):
            n = self.own[name].n if name in self.own else self.few.get(name, 0)
            records.append({"name": name, "n": n, "threshold": self.thresholds.get(name), "images": images[name]})
        return records

    def without_promise(self, paths: Iterable[str]) -> str | None:
        """A warning where images are judged by calibration images of other kinds, which promise nothing for them."""
        images = sum(self.name(path) is None for path in paths)
        if self.promised or not images:
            return None
        known = sum(self.few.values())
        return (
            f"{images} images lie in sub-folders for which no false-alarm rate is promised: {self.rate:g} takes "
            f"{self.needed} calibration images, and all such sub-folders together have {known}; they are judged by all "
            f"{self.rest.n} calibration images, which are mostly of other sub-folders"
        )

    def explain(self, paths: Iterable[str]) -> Iterator[str]:
        """The same in sentences."""
        if not self.own and not self.few:
            yield (
                "not known to the model's calibration, so one threshold judges all images: its good images lay in one "
                "folder, or an earlier version made it; train again with good images in sub-folders"
            )
            return
        records = self.describe(paths)
        with_own = [f"{_shown(r['name'])} ({r['n']})" for r in records if r["threshold"] is not None]
        without = [f"{_shown(r['name'])} ({r['n']})" for r in records if r["threshold"] is None]
        if with_own:
            yield f"with a threshold of their own (calibration images): {', '.join(with_own)}"
        if without and self.promised:
            yield (
                f"judged together by their {self.rest.n} calibration images, since {self.rate:g} takes {self.needed} "
                f"of a group; the rate is promised for all of them as one, not for each: {', '.join(without)}"
            )
        elif without:
            yield (
                f"without a promise of their own, judged by all {self.rest.n} calibration images, since {self.rate:g} "
                f"takes {self.needed} of a group or of all these together: {', '.join(without)}"
            )


def _shown(name: str) -> str:
    return printable(name) if name else "(no sub-folder)"
