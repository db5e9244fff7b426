"""Verdicts: from scores, and the false-alarm rate that is asked, to abnormal or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.anomaly.calibration import Calibration, check_rate
from pipelines.anomaly.drift import STATISTICS
from pipelines.anomaly.group_thresholds import GroupThresholds, Judge, group_of
from pipelines.anomaly.score_tally import Tally
from pipelines.base.percentages import percent, promised
from pipelines.errors import CalibrationError

Row = dict[str, Any]  # of an image, by column
OF_VERDICTS = ("status", *STATISTICS)  # columns that verdicts on all images together take
OF_ROWS = ("p_value", "is_anomaly", "threshold", "group", "promised")  # columns that `fill` adds
LARGE_PART = 0.02  # of a folder: where so many images have to be abnormal before any is flagged, the run says so


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The threshold, and where it comes from. Without calibration all of it is None.

    Attributes:
        calibration: The good images' scores.
        false_alarms: The rate asked, or the share of false discoveries where that is the rule. The calibration says
            whether it is promised.
        threshold: Scores above it are abnormal, but for those of groups with their own. Until `settle` has seen all
            scores it is where it can be lowest.
        budget: Flag at most so many images, the worst of those above the threshold.
        discoveries: Ask for a share of the flagged images that are good, instead of a share of the good ones flagged.
        groups: Thresholds of sub-folders that have their own; None: one threshold for all.
    """

    calibration: Calibration | None
    false_alarms: float | None
    threshold: float | None
    budget: int | None = None
    discoveries: bool = False
    groups: GroupThresholds | None = None

    @classmethod
    def of(
        cls,
        calibration: Calibration | None,
        false_alarms: float | None,
        *,
        budget: int | None = None,
        false_discoveries: float | None = None,
        groups: bool = False,
        group_level: int = 0,
    ) -> Verdicts:
        """Work out the threshold for a false-alarm rate.

        Args:
            calibration: The good images' scores.
            false_alarms: The rate asked; None: the calibration's own.
            budget: Flag at most so many images.
            false_discoveries: Instead of `false_alarms`: share of the flagged images that may be good.
            groups: Judge each sub-folder by its own calibration images where it has enough; the others together.
            group_level: Which sub-folder of a path is its group; 0 is the first.

        Raises:
            CalibrationError: The calibration set is too small for that rate, or two rules exclude each other.
        """
        check_rule(false_alarms, budget=budget, false_discoveries=false_discoveries, groups=groups)
        if calibration is None:
            return cls(None, None, None)
        if false_discoveries is not None:
            return cls(calibration, false_discoveries, calibration.threshold(false_discoveries), discoveries=True)
        rate = calibration.default_false_alarms() if false_alarms is None else false_alarms
        if groups:
            own = GroupThresholds.of(calibration, rate, level=group_level)
            return cls(calibration, rate, (own.rest if own.few else own.strange).threshold, groups=own)
        return cls(calibration, rate, calibration.threshold(rate), budget)

    def with_calibration(self, calibration: Calibration) -> Verdicts:
        """Return the same rule by other calibration scores."""
        if self.discoveries:
            return Verdicts.of(calibration, None, false_discoveries=self.false_alarms)
        grouped = self.groups is not None
        level = self.groups.level if self.groups else 0
        return Verdicts.of(calibration, self.false_alarms, budget=self.budget, groups=grouped, group_level=level)

    def threshold_of(self, path: str) -> float | None:
        """Return the threshold that an image is judged by: its group's, where sub-folders are judged by themselves."""
        return self.groups.judge(group_of(path, self.groups.level)).threshold if self.groups else self.threshold

    def is_represented(self, path: str) -> bool:
        """Return whether the rule is meant for an image: calibration knows its sub-folder, if it has one."""
        return self.groups is None or self.groups.judge(group_of(path, self.groups.level)).represented

    def is_flagged(self, path: str, score: float) -> bool:
        """Return whether an image with this score is abnormal; before `settle`, whether it may be."""
        threshold = self.threshold_of(path)
        return threshold is not None and score > threshold

    @property
    def rule(self) -> str | None:
        """Where the threshold comes from, in words; None where it is the false-alarm rate alone."""
        if self.false_alarms is None or self.calibration is None:
            return None
        rate = promised(self.false_alarms)
        if self.discoveries and not self.calibration.is_proved:
            return f"{rate} good ones among the flagged images were asked (Benjamini-Hochberg; not proved)"
        if self.discoveries:
            return f"at most {rate} of the flagged images are good, on average (Benjamini-Hochberg)"
        if self.budget is not None:
            return f"at most the {self.budget} worst images are flagged"
        if self.groups is not None and self.groups.own:
            which = "group" if len(self.groups.own) == 1 else "groups"
            rule = f"false-alarm rate of {rate} {self.calibration.is_what} in each of {len(self.groups.own)} {which}"
            together = f", and in {len(self.groups.few)} with few calibration images together"
            return rule + together * self.groups.rest.represented
        return None

    @property
    def options(self) -> dict[str, float]:
        """The rule, as `of` takes it and the command line has options for it; empty without calibration."""
        if self.false_alarms is None:
            return {}
        if self.discoveries:
            return {"false_discoveries": self.false_alarms}
        return {"false_alarms": self.false_alarms} | ({} if self.budget is None else {"budget": self.budget})

    def describe(self, paths: Iterable[str], unpromised: int) -> dict[str, Any] | None:
        """Describe the rule for run.json, with what it takes to judge by it again; None without calibration.

        Args:
            paths: Of all images.
            unpromised: Images that the rate is not meant for: see `GroupThresholds`.
        """
        if self.calibration is None:
            return None
        grouped = self.groups and {
            "level": self.groups.level,
            "needed": self.groups.needed,
            "others": {
                "n": self.groups.rest.calibration.n,
                "represented": self.groups.rest.represented,
                "promised": self.groups.rest.promised,
            },
            "unpromised": unpromised,
            "groups": self.groups.describe(paths),
            "scores": {name: list(scores) for name, scores in self.calibration.groups.items()},
        }
        return self.calibration.claim.model_dump(mode="json") | {
            "n": self.calibration.n,
            "false_alarms": self.false_alarms,
            "threshold": self.threshold,
            "rule": self.rule,
            "options": self.options,
            "scores": list(self.calibration.scores),
            "grouped": grouped,
        }

    def caution(self, images: int) -> str | None:
        """A warning where a share of false discoveries is judged by so few calibration images that it hides defects.

        The i smallest p-values pass only if the i-th is at most share * i / images, and none is below 1/(n + 1).

        Args:
            images: How many have a score.
        """
        if not self.discoveries or self.calibration is None or self.false_alarms is None:
            return None
        part = self.calibration.smallest_rate / self.false_alarms
        together = math.ceil(part * images - 1e-9)
        if together < 2 or part <= LARGE_PART:
            return None
        enough = math.ceil(1 / (LARGE_PART * self.false_alarms) - 1e-9) - 1
        return (
            f"at least {together} of these {images} images must be flagged together, or none is: {self.calibration.n} "
            f"calibration images tell nothing rarer than 1 in {self.calibration.n + 1}, so a share of "
            f"{self.false_alarms:g} false discoveries needs {percent(part)} of a folder to stand out. Fewer defects "
            "stay hidden, however plain: use --false-alarms, which judges each image by itself, or calibrate on "
            f"{enough:,} good images or more"
        )

    @property
    def may_move(self) -> bool:
        """Return whether the threshold depends on the scores of the images that are judged."""
        return self.threshold is not None and (self.discoveries or self.budget is not None)

    def tally(self) -> Tally | None:
        """Return an empty count of scores for `settle`; None where the threshold does not depend on them."""
        if self.calibration is None or not self.may_move:
            return None
        return Tally(self.calibration, 0 if self.budget is None else self.budget + 1)

    def settle(self, tally: Tally | None) -> Verdicts:
        """Move the threshold to where the rule puts it, now that every score is known.

        Args:
            tally: From `tally`, with the scores of all images that have one.

        Source: Benjamini and Hochberg 1995, "Controlling the false discovery rate"; that it holds for conformal
        p-values, which share their calibration set: Bates et al. 2023, theorem 2.
        """
        if tally is None or not tally.total or self.threshold is None or self.false_alarms is None:
            return self
        if self.discoveries:
            return replace(self, threshold=tally.step_up(self.false_alarms))
        assert self.budget is not None  # noqa: S101 - for the type checker: one of the two rules that have a tally
        first = tally.largest(self.budget)  # of those that the budget has no room for: ties with it stay below
        return self if first is None or first <= self.threshold else replace(self, threshold=first)

    def fill(self, rows: Sequence[Row]) -> None:
        """Add verdicts to rows that have a score: p_value, is_anomaly, threshold, group and promised.

        `group` is the group whose own threshold it is. `promised`: the rate is proved for this image. `p_value` is null
        where the rate is not meant for it.
        """
        for row in rows:
            row.update(dict.fromkeys(OF_ROWS))
        scored = [row for row in rows if row["status"] == "ok"]
        if self.calibration is None or self.threshold is None:
            return
        if self.groups is None:
            _judge(scored, Judge(self.calibration, self.threshold, represented=True))
            return
        members: dict[str, list[Row]] = {}
        for row in scored:
            members.setdefault(group_of(row["path"], self.groups.level), []).append(row)
        for name, of_group in members.items():
            _judge(of_group, self.groups.judge(name), name if name in self.groups.own else None)


def _judge(rows: Sequence[Row], judge: Judge, group: str | None = None) -> None:
    if not rows:
        return
    p_values = judge.calibration.p_values(np.array([row["score"] for row in rows])).tolist()
    for row, p_value in zip(rows, p_values, strict=True):
        row.update(
            p_value=p_value if judge.represented else None, is_anomaly=row["score"] > judge.threshold,
            threshold=judge.threshold, group=group, promised=judge.promised,
        )  # fmt: skip


def check_rule(
    false_alarms: float | None,
    *,
    budget: int | None = None,
    false_discoveries: float | None = None,
    groups: bool = False,
) -> None:
    """Refuse what no calibration could make good, before a model is looked for.

    Raises:
        CalibrationError: Two rules exclude each other, or a rate is not between 0 and 1.
    """
    if false_discoveries is not None and (false_alarms is not None or budget is not None):
        msg = "a share of false discoveries is a rule of its own: give no false-alarm rate and no budget with it"
        raise CalibrationError(msg)
    if groups and (budget is not None or false_discoveries is not None):
        msg = "thresholds by group follow from a false-alarm rate: give no budget and no false discoveries with groups"
        raise CalibrationError(msg)
    for rate in (false_alarms, false_discoveries):
        if rate is not None:
            check_rate(rate)


def floats(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as numbers."""
    values: NDArray[np.float64] = rows[name].to_numpy().astype(np.float64)
    return values
