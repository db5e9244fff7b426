"""What the images of a run are judged against: calibration, whose rate holds while images stay alike, or their folder.

read all scores -> have the images drifted? -> where do the folder's good images lie? -> which verdicts are the run's
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.anomaly.blank_images import BlankImages
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import LEVEL, STATISTICS, Drift, Sample, check_drift
from pipelines.anomaly.excess import find_excess
from pipelines.anomaly.folder_scale import LEAST_GOOD, Floats, FolderScale, NoScale, estimate_scale
from pipelines.anomaly.group_thresholds import group_of
from pipelines.anomaly.verdicts import OF_VERDICTS, Row, Verdicts, floats
from pipelines.base.percentages import percent

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
        moved: Sub-folders whose good images score otherwise than their own calibration images.
        asked: What was asked for.
        share: Of the images that calibration's threshold flags.
        trained_on: Images of the run that the model was trained on. They say nothing about drift or about the folder.
        blank: What to know of blank images; "" where there are none.
    """

    calibration: Verdicts
    folder: Verdicts | None = None
    scale: FolderScale | NoScale | None = None
    own: Mapping[str, FolderScale] = field(default_factory=dict)
    drift: Drift | None = None
    moved: tuple[str, ...] = ()
    asked: Against = "auto"
    share: float = 0.0
    trained_on: int = 0
    blank: str = ""

    @property
    def scores_moved(self) -> bool:
        """Return whether good images score otherwise than those of calibration."""
        return bool(self.moved) or (self.drift is not None and self.drift.moves_verdicts)

    @property
    def against(self) -> Reference:
        """Return what the run's verdicts are against."""
        wanted = self.asked == "folder" or (self.asked == "auto" and self.scores_moved and not self.may_be_defects)
        return "folder" if wanted and self.folder is not None else "calibration"

    @property
    def are_many(self) -> bool:
        """Return whether calibration flags so many images that they may be drifted good ones, or defects."""
        return self.share > 1 - LEAST_GOOD

    @property
    def may_be_defects(self) -> bool:
        """Return whether many images are flagged, and no fact of the images says that light or camera have changed."""
        return self.are_many and not self.moved and not (self.drift is not None and self.drift.changed)

    @property
    def run(self) -> Verdicts:
        """Return the run's verdicts."""
        return self.folder if self.folder is not None and self.against == "folder" else self.calibration

    @property
    def why(self) -> str:
        """Return why these verdicts are the run's, in a sentence; "" where calibration judges images like its own."""
        if self.calibration.calibration is None:
            return ""
        if self.against == "folder":
            asked = "this was asked for" if self.asked == "folder" else "they do not score like the calibration images"
            many = f". Calibration flags {percent(self.share)} of them: if these are defects, use --against calibration"
            return (
                f"the images are judged against each other, since {asked}. An image is abnormal if it stands out from "
                f"most images of this folder; this finds defects as long as most images are good{many * self.are_many}"
            )
        refused = self.scale.reason if isinstance(self.scale, NoScale) else None
        if self.asked == "folder":
            return (
                f"the images are judged against calibration, since they cannot be judged against each other: {refused}"
            )
        if not self.scores_moved:
            return ""
        if self.asked == "calibration":
            return "the images are judged against calibration, as was asked, though they do not score like its images"
        if self.may_be_defects and self.folder is not None:
            return (
                f"calibration flags {percent(self.share)} of the images, and nothing else about them has changed: they "
                "may be defective, and are judged against calibration. If most of them are good, use --against folder"
            )
        return (
            "the images do not score like the calibration images, but are still judged against them, because they "
            f"cannot be judged against each other: {refused}"
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Add the verdicts of the run to rows, and those against calibration and against the folder apart.

        `p_value`, `is_anomaly`, `threshold`, `group` and `promised` are the run's.
        """
        found: dict[str, list[tuple[Any, Any]]] = {}
        both = [("calibration", self.calibration), ("folder", self.folder)]
        for name, verdicts in sorted(both, key=lambda each: each[0] == self.against):  # the run's own last: they stay
            if verdicts is not None:
                verdicts.fill(rows)
                found[name] = [(row["p_value"], row["is_anomaly"]) for row in rows]
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
    trained_on: Collection[str] = (),
) -> Judgement:
    """Settle the rule for all images of a run, find whether they have drifted, and what they are judged against.

    Args:
        verdicts: The rule, by calibration.
        tables: Gives the columns `COLUMNS_NEEDED` of all images.
        drift_below: The sub-folders whose images tell of drift, where others are known to be abnormal.
        against: What is asked for.
        trained_on: sha256 of the files that the model was trained on. They score lower than new images, so they show
            neither whether images have drifted nor where the folder's good images lie.
    """
    calibration = verdicts.calibration
    sample, scores, tally = Sample(), _Scores(verdicts), verdicts.tally()
    known, count, blank = pa.array(sorted(trained_on), pa.string()), 0, BlankImages(calibration)
    for table in tables():
        ok = table.filter(pc.equal(table["status"], "ok"))
        if tally is not None:
            tally.add(floats(ok, "score"))
        if calibration is None:
            continue
        blank.add(ok)
        if len(known):
            new = ok.filter(pc.invert(pc.is_in(ok["sha256"], value_set=known)))
            count, ok = count + len(ok) - len(new), new
        scores.add(ok)
        if drift_below:
            ok = ok.filter(pa.array(np.isin([group_of(path) for path in ok["path"].to_pylist()], drift_below)))
        sample.add({name: floats(ok, name) for name in STATISTICS})
    if calibration is None:
        return Judgement(verdicts, asked=against)
    statistics = calibration.statistics
    drift = check_drift(statistics, sample.values, images=sample.images) if statistics else None
    drift = drift and _with_excess(drift, sample.values["score"], verdicts)
    judgement = Judgement(
        verdicts.settle(tally), drift=drift, moved=scores.find_moved(calibration), asked=against,
        share=scores.share_above(verdicts.threshold), trained_on=count, blank=blank.warning,
    )  # fmt: skip
    if judgement.scores_moved:
        recast = verdicts.with_calibration(calibration.recast("drifted")).settle(tally)
        judgement = replace(judgement, calibration=recast)
    return judgement if against == "calibration" else _add_folder(judgement, verdicts, calibration, scores, tables)


def _add_folder(
    judgement: Judgement, verdicts: Verdicts, calibration: Calibration, scores: _Scores, tables: Tables
) -> Judgement:
    """Add verdicts against the folder, where it shows where its good images lie."""
    own = {
        name: scale
        for name, each in scores.of_groups().items()
        if isinstance(scale := estimate_scale(each, calibration.of_group(name) or calibration), FolderScale)
    }
    rest = estimate_scale(scores.without(own), calibration)
    if not isinstance(rest, FolderScale) and not own:
        return replace(judgement, scale=rest)

    def move(of_good: Floats, group: str | None) -> Floats:
        scale = own.get(group or "", rest)
        return scale.from_calibration(of_good) if isinstance(scale, FolderScale) else of_good

    folder = verdicts.with_calibration(calibration.recast("folder", move))
    if (of_folder := folder.tally()) is not None:
        for table in tables():
            of_folder.add(floats(table.filter(pc.equal(table["status"], "ok")), "score"))
    return replace(judgement, folder=folder.settle(of_folder), scale=rest, own=own)


def _with_excess(drift: Drift, scores: Floats, verdicts: Verdicts) -> Drift:
    """Add the share of good images above the threshold, where it is far more than asked: that is drift, too."""
    asked, threshold, calibration = verdicts.false_alarms, verdicts.threshold, verdicts.calibration
    if calibration is None or asked is None or threshold is None or verdicts.discoveries or verdicts.groups is not None:
        return drift
    share = find_excess(scores, np.asarray(calibration.scores, np.float64), threshold, asked)
    return drift if share is None else replace(drift, drifted=True, flagged_good=share)


class _Scores:
    """The scores of a run's images, as far as they show where good images lie, by sub-folder where these count."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._level = verdicts.groups.level if verdicts.groups is not None else None
        self._known = set(verdicts.groups.own) if verdicts.groups is not None else set[str]()
        self._samples: dict[str, Sample] = {}

    def add(self, ok: pa.Table) -> None:
        every = floats(ok, "score")
        if self._level is None:
            self._keep("", every)
            return
        groups = np.array([group_of(path, self._level) for path in ok["path"].to_pylist()], dtype=object)
        others = np.ones(len(every), dtype=bool)
        for name in self._known:
            chosen = groups == name
            others &= ~chosen
            self._keep(name, every[chosen])
        self._keep("", every[others])

    def find_moved(self, calibration: Calibration) -> tuple[str, ...]:
        """Return the sub-folders whose good images score otherwise than their own calibration images."""
        moved, found = [], self.of_groups()
        for name, scores in sorted(found.items()):
            known = calibration.of_group(name)
            if known is None:
                continue
            # Corrected for the number of sub-folders (Bonferroni): together they keep the level.
            drift = check_drift({"score": known.scores}, {"score": scores}, LEVEL / len(found))
            moved += [name] * (drift is not None and drift.drifted)
        return tuple(moved)

    def of_groups(self) -> dict[str, Floats]:
        """The scores of each sub-folder with a threshold of its own."""
        return {name: self._samples[name].values["score"] for name in self._known if name in self._samples}

    def share_above(self, threshold: float | None) -> float:
        """The share of all images that score above a threshold; 0 where there is none."""
        every = self.without({})
        return float((every > threshold).mean()) if threshold is not None and len(every) else 0.0

    def without(self, own: Mapping[str, FolderScale]) -> Floats:
        """The scores of all images but those of sub-folders that have a scale of their own."""
        parts = [sample.values["score"] for name, sample in self._samples.items() if name not in own]
        return np.concatenate([np.empty(0), *parts])

    def _keep(self, name: str, values: Floats) -> None:
        if len(values):
            self._samples.setdefault(name, Sample(("score",))).add({"score": values})


COLUMNS_NEEDED = (*OF_VERDICTS, "sha256", "path")
"""What `judge_run` reads of each image."""
