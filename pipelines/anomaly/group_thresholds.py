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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.anomaly.calibration import Calibration
from pipelines.base.percentages import promised
from pipelines.base.safe_text import printable
from pipelines.errors import CalibrationError

SHOWN = 5  # sub-folders that a warning names


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
class Judge:
    """What images of some groups are judged by.

    Attributes:
        calibration: The good images that they are compared with.
        threshold: Scores above it are abnormal.
        represented: Whether these images are of their own kind, so that the false-alarm rate is meant for them.
    """

    calibration: Calibration
    threshold: float
    represented: bool

    @property
    def promised(self) -> bool:
        """Whether the false-alarm rate is proved for these images."""
        return self.represented and self.calibration.is_proved


@dataclass(frozen=True, slots=True)
class GroupThresholds:
    """Which groups have a threshold of their own, and what all other images are judged by.

    Attributes:
        rate: The false-alarm rate asked.
        level: Which sub-folder of a path is the group.
        own: Of the groups with images enough for the rate.
        few: Calibration images of the other groups that have any.
        rest: What the groups in `few` are judged by together: their calibration images, or all of them, where these
            are too few for the rate, which is then not meant for them.
        strange: What groups without calibration images are judged by: all of them, and the rate is not meant for them.
            Where the calibration knows no groups, every sub-folder is one of these.
    """

    rate: float
    level: int
    own: dict[str, Judge]
    few: dict[str, int]
    rest: Judge
    strange: Judge

    @classmethod
    def of(cls, calibration: Calibration, rate: float, *, level: int = 0) -> GroupThresholds:
        """Give every group with images enough, 1/(n + 1) <= rate, a threshold of its own, and all smaller ones one.

        Raises:
            CalibrationError: All calibration images together are too few for that rate.
        """
        own: dict[str, Judge] = {}
        few: dict[str, int] = {}
        for name in calibration.groups:
            group = calibration.of_group(name)
            assert group is not None  # noqa: S101 - for the type checker: it is one of its groups
            try:
                own[name] = Judge(group, group.threshold(rate), represented=True)
            except CalibrationError:
                few[name] = group.n
        strange = Judge(calibration, calibration.threshold(rate), represented=False)
        together, rest = calibration.of_groups(few), strange
        if together is not None and together.smallest_rate <= rate:
            rest = Judge(together, together.threshold(rate), represented=True)
        return cls(rate, level, own, few, rest, strange)

    def name(self, relative: str) -> str | None:
        """Return the group whose threshold an image is judged by; None for those without one of their own."""
        group = group_of(relative, self.level)
        return group if group in self.own else None

    def judge(self, group: str) -> Judge:
        """Return what images of a group are judged by."""
        if not group and not self.knows_groups:  # in no sub-folder, as in a run without groups
            return replace(self.strange, represented=True)
        return self.own.get(group) or (self.rest if group in self.few else self.strange)

    @property
    def knows_groups(self) -> bool:
        """Return whether the calibration knows sub-folders."""
        return bool(self.own or self.few)

    @property
    def needed(self) -> int:
        """Calibration images that a group needs for the rate."""
        return math.ceil(1 / self.rate - 1e-9) - 1

    def describe(self, paths: Iterable[str]) -> list[dict[str, Any]]:
        """List what became of each group, of calibration and of these images: as records for run.json."""
        images = Counter(group_of(path, self.level) for path in paths)
        records = []
        for name in sorted({*self.own, *self.few, *images}):
            judge, own = self.judge(name), name in self.own
            records.append({
                "name": name,
                "n": judge.calibration.n if own else self.few.get(name, 0),
                "threshold": judge.threshold if own else None,
                "judged_by": {"n": judge.calibration.n, "threshold": judge.threshold},
                "represented": judge.represented,
                "promised": judge.promised,
                "images": images[name],
            })  # fmt: skip
        return records

    def warn_of_unrepresented(self, paths: Iterable[str]) -> Iterator[str]:
        """Warn where images are judged by calibration images of other kinds, which say nothing of their rate."""
        records = [record for record in self.describe(paths) if record["images"] and not record["represented"]]
        is_proved = self.strange.calibration.is_proved
        is_what, holds = ("promised", "then holds") if is_proved else ("known", "is then asked")
        by_all = f"judged by all {self.strange.calibration.n} calibration images, and have no p-value"
        if records and not self.knows_groups:
            yield (
                f"{_images(records)} in sub-folders, and the model's calibration knows none, so no false-alarm rate is "
                f"{is_what} for them: {_listed(records)}. They are {by_all}. Train with good images in these "
                f"sub-folders, or score without --groups: the rate {holds} for images like the calibration images, "
                "all as one"
            )
            return
        if strange := [record for record in records if not record["n"]]:
            yield (
                f"{_images(strange)} in sub-folders that the model was not calibrated on, so no false-alarm rate is "
                f"{is_what} for them: {_listed(strange)}. They are {by_all}. Train with good images of these "
                "sub-folders"
            )
        if few := [record for record in records if record["n"]]:
            yield (
                f"{_images(few)} in sub-folders for which no false-alarm rate is {is_what}: {promised(self.rate)} "
                f"needs {self.needed} calibration images, and all such sub-folders together have "
                f"{sum(self.few.values())}: {_counted(few)}. They are {by_all}"
            )

    def explain(self, paths: Iterable[str]) -> Iterator[str]:
        """Say what judges the groups that the rate is meant for; `warn_of_unrepresented` warns of all others."""
        records = [record for record in self.describe(paths) if record["images"] and record["represented"]]
        if with_own := [record for record in records if record["name"] in self.own]:
            yield f"with a threshold of their own (calibration images): {_counted(with_own)}"
        if few := [record for record in records if record["name"] in self.few]:
            yield (
                f"judged together by {self.rest.calibration.n} calibration images of small groups, since "
                f"{promised(self.rate)} needs {self.needed} images in the group; the rate is "
                f"{self.strange.calibration.is_what} for all of them as one, not for each: {_counted(few)}"
            )


def _images(records: Sequence[Mapping[str, Any]]) -> str:
    images = sum(record["images"] for record in records)
    return f"{images} image{' lies' if images == 1 else 's lie'}"


def _listed(records: Sequence[Mapping[str, Any]]) -> str:
    names = [_shown(record["name"]) for record in records]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _counted(records: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{_shown(record['name'])} ({record['n']})" for record in records)


def _shown(name: str) -> str:
    return printable(name) if name else "(no sub-folder)"
