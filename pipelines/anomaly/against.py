"""What the images of a run are judged against: calibration, whose rate holds while images stay alike, or their folder.

read all scores -> have the images drifted? -> where do the folder's good images lie? -> which verdicts are the run's
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.anomaly.drift import STATISTICS, Drift, Sample, check_drift
from pipelines.anomaly.folder_scale import FEWEST_IMAGES, Floats, FolderScale, NoScale, estimate_scale
from pipelines.anomaly.group_thresholds import group_of
from pipelines.anomaly.verdicts import OF_VERDICTS, Row, Verdicts, floats

Reference = Literal["calibration", "folder"]
Against = Literal["calibration", "folder", "auto"]
OF_BOTH = ("against", "calibration_p_value", "calibration_is_anomaly", "folder_p_value", "folder_is_anomaly")
Tables = Callable[[], Iterable[pa.Table]]  # of all images, each time that they are asked for


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts of a run, and those that it does not go by.

    Attributes:
        calibration: Against calibration.
        folder: Against the folder; None where it does not show where its good images lie, or nobody asked.
        scale: Where they lie; or why that is not known.
        own: Of sub-folders that are judged by themselves.
        drift: What the test for drift found; None where there are too few images.
        asked: What was asked for.
    """

    calibration: Verdicts
    folder: Verdicts | None = None
    scale: FolderScale | NoScale | None = None
    own: Mapping[str, FolderScale] = field(default_factory=dict)
    drift: Drift | None = None
    asked: Against = "auto"

    @property
    def drifted(self) -> bool:
        """Return whether the images are not like those of calibration."""
        return self.drift is not None and self.drift.drifted

    @property
    def against(self) -> Reference:
        """What the run's verdicts are against."""
        wanted = self.asked == "folder" or (self.asked == "auto" and self.drifted)
        return "folder" if wanted and self.folder is not None else "calibration"

    @property
    def run(self) -> Verdicts:
        """The run's verdicts."""
        return self.folder if self.folder is not None and self.against == "folder" else self.calibration

    @property
    def why(self) -> str:
        """Why these verdicts are the run's, in a sentence; empty where calibration judges images like its own."""
        if self.against == "folder":
            asked = "this was asked for" if self.asked == "folder" else "they are not like the calibration images"
            return (
                f"the images are judged against each other, since {asked}. An image is abnormal if it stands out from "
                "most images of this folder; this finds defects as long as most images are good"
            )
        refused = self.scale.reason if isinstance(self.scale, NoScale) else None
        if self.asked == "folder":
            return f"the images are judged against calibration, though against the folder was asked: {refused}"
        if not self.drifted:
            return ""
        if self.asked == "calibration":
            return "the images are judged against calibration, as was asked, though they are not like its images"
        return (
            "the images are not like the calibration images, and are judged against them all the same, since they "
            f"cannot be judged against each other: {refused}"
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Add the verdicts of the run to rows, and those against calibration and against the folder apart.

        `p_value`, `is_anomaly`, `threshold`, `group` and `promised` are the run's.
        """
        found: dict[str, list[tuple[Any, Any]]] = {}
        for name, verdicts in (("calibration", self.calibration), ("folder", self.folder)):
            if verdicts is not None:
                verdicts.fill(rows)
                found[name] = [(row["p_value"], row["is_anomaly"]) for row in rows]
        if self.folder is not None and self.against == "calibration":
            self.calibration.fill(rows)
        for at, row in enumerate(rows):
            row.update(dict.fromkeys(OF_BOTH))
            for name, values in found.items():
                row[f"{name}_p_value"], row[f"{name}_is_anomaly"] = values[at]
            row["against"] = None if row["is_anomaly"] is None else self.against

    def count(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Take the images that each verdict flags, where there is one, from what was counted of rows."""
        both = {"calibration": self.calibration, "folder": self.folder}
        return {name: counts[f"flagged_{name}"] for name, rule in both.items() if rule is not None and rule.calibration}

    def describe(self) -> dict[str, Any]:
        """Describe what the images are judged against, for run.json."""
        shown = None
        if isinstance(self.scale, FolderScale):
            shown = {
                "move": self.scale.move, "stretch": self.scale.stretch, "good": self.scale.good,
                "images": self.scale.images, "groups": sorted(self.own),
            }  # fmt: skip
        return {
            "asked": self.asked,
            "used": self.against,
            "why": self.why,
            "folder": shown,
            "refused": self.scale.reason if isinstance(self.scale, NoScale) else None,
        }


def judge_run(
    verdicts: Verdicts,
    tables: Tables,
    *,
    drift_below: tuple[str, ...] = (),
    against: Against = "auto",
    recent: Floats | Sequence[float] = (),
) -> Judgement:
    """Settle the rule for all images of a run, find whether they have drifted, and what they are judged against.

    Args:
        verdicts: The rule, by calibration.
        tables: Gives the columns `columns_needed` of all images.
        drift_below: The sub-folders whose images tell of drift, where others are known to be abnormal.
        against: What is asked for.
        recent: (M,) scores of images that earlier runs accepted, which also show where good ones lie.
    """
    calibration = verdicts.calibration
    sample, by_group, tally = Sample(), dict[str, Sample](), verdicts.tally()
    for table in tables():
        ok = table.filter(pc.equal(table["status"], "ok"))
        if tally is not None:
            tally.add(floats(ok, "score"))
        if calibration is None:
            continue
        if verdicts.groups is not None:
            _add_by_group(by_group, ok, verdicts.groups.level, verdicts.groups.own)
        if drift_below:
            ok = ok.filter(pa.array(np.isin([group_of(path) for path in ok["path"].to_pylist()], drift_below)))
        sample.add(_statistics(ok))
    if calibration is None:
        return Judgement(verdicts, asked=against)
    statistics = calibration.statistics
    drift = check_drift(statistics, sample.values, images=sample.images) if statistics else None
    here = np.concatenate([sample.values["score"], recent])
    scale = estimate_scale(here, calibration) if against != "calibration" else None
    settled = verdicts.settle(tally)
    if drift is not None and drift.drifted:
        settled = verdicts.again(calibration.judging_as("drifted")).settle(tally)
    if not isinstance(scale, FolderScale):
        return Judgement(settled, None, scale, {}, drift, against)
    own = {}
    for name, each in by_group.items():
        known = calibration.of_group(name)
        of_group = estimate_scale(each.values["score"], known or calibration)
        if isinstance(of_group, FolderScale):
            own[name] = of_group

    def move(scores: Floats, group: str | None) -> Floats:
        return (
            own.get(group or "", scale).from_calibration(scores)
            if group is not None
            else scale.from_calibration(scores)
        )

    folder = verdicts.again(calibration.judging_as("folder", move))
    if (of_folder := folder.tally()) is not None:
        for table in tables():
            of_folder.add(floats(table.filter(pc.equal(table["status"], "ok")), "score"))
    return Judgement(settled, folder.settle(of_folder), scale, own, drift, against)


def columns_needed(verdicts: Verdicts, drift_below: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that `judge_run` reads."""
    return (*OF_VERDICTS, "path") if drift_below or verdicts.groups is not None else OF_VERDICTS


def _statistics(ok: pa.Table) -> dict[str, Floats]:
    return {name: floats(ok, name) for name in STATISTICS}


def _add_by_group(by_group: dict[str, Sample], ok: pa.Table, level: int, known: Mapping[str, Any]) -> None:
    groups = np.array([group_of(path, level) for path in ok["path"].to_pylist()])
    for name in known:
        chosen = ok.filter(pa.array(groups == name))
        if len(chosen):
            by_group.setdefault(name, Sample()).add(_statistics(chosen))


__all__ = ["FEWEST_IMAGES", "Against", "Judgement", "Reference", "columns_needed", "judge_run"]
