"""The promotion rule: a challenger against today's champion, both measured in the same run on the same images.

The figure is the AUROC with which a model tells held-out good images from the same images with synthetic defects:
both models can have it, whatever they call a likelihood, where their ELBOs could not be compared. And a challenger has
to keep its promised false-alarm rate on good images that it was not calibrated on. Where both tell classes of
images, it must tell them as well, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.calibration import Calibration
from pipelines.damaged import with_damage
from pipelines.data import TrainingData
from pipelines.figures import separation
from pipelines.groups import group_of
from pipelines.images import ImageFile
from pipelines.job_tables import PromoteTable
from pipelines.modelfile import ModelFile
from pipelines.rates import percent
from pipelines.session import Session
from pipelines.settings import settings

log = logging.getLogger(__name__)
DEFECTS_PER_IMAGE = 2
LEVEL = 0.99  # of the interval that the realised false-alarm rate has to stay under


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, in words, and the figures behind it."""

    promote: bool
    reason: str
    figures: dict[str, float]


def decide(
    challenger: ModelFile, champion: ModelFile | None, data: TrainingData, table: PromoteTable, false_alarms: float
) -> Decision:
    """Measure challenger and champion, and apply the job's rule.

    Args:
        challenger: The new bundle; parity with torch has been checked.
        champion: Today's champion; None when there is none.
        data: Of the challenger; its select split is what both are measured on.
        table: The job's rule.
        false_alarms: The promised rate, which the challenger's calibration allows.
    """
    files = _unseen(data, champion)
    mine = _measure(challenger, files, false_alarms)
    figures = {f"challenger_{name}": value for name, value in mine.items()} | {"images": float(len(files))}
    if champion is None:
        promote = table.rule != "never"
        return Decision(
            promote, "the first version; its exported file gives the scores of the trained network", figures
        )
    theirs = _measure(champion, files, false_alarms)
    figures |= {f"champion_{name}": value for name, value in theirs.items()}
    if table.rule != "better":
        return Decision(table.rule == "always", f"the job's rule is '{table.rule}'", figures)
    gain = mine["synthetic_auroc"] - theirs["synthetic_auroc"]
    comparison = (
        f"AUROC on synthetic defects {mine['synthetic_auroc']:.4f} against the champion's "
        f"{theirs['synthetic_auroc']:.4f} on {len(files)} held-out images"
    )
    if mine["false_alarm_rate"] > mine["false_alarm_limit"]:
        reason = (
            f"it flags {percent(mine['false_alarm_rate'])} of good images, more than its promise allows by chance "
            f"({percent(mine['false_alarm_limit'])}); {comparison}"
        )
        return Decision(promote=False, reason=reason, figures=figures)
    if gain < -table.tolerance:
        return Decision(promote=False, reason=f"worse: {comparison} (tolerance {table.tolerance:g})", figures=figures)
    if "accuracy" in mine and "accuracy" in theirs:
        told = f"class right for {percent(mine['accuracy'])} against {percent(theirs['accuracy'])}"
        if mine["accuracy"] < theirs["accuracy"] - table.tolerance:
            reason = f"worse: {told} of {len(files)} held-out images (tolerance {table.tolerance:g}); {comparison}"
            return Decision(promote=False, reason=reason, figures=figures)
        comparison = f"{told}; {comparison}"
    return Decision(promote=True, reason=f"not worse: {comparison}", figures=figures)


def _unseen(data: TrainingData, champion: ModelFile | None) -> list[ImageFile]:
    """The challenger's select split, less what the champion was trained on (all of it when nothing would be left)."""
    return [data.files[index] for index in unseen_by(champion, data.split["select"], data.sha256)]


def unseen_by(champion: ModelFile | None, indices: Sequence[int], digests: Sequence[str]) -> Sequence[int]:
    """Some images, less those that a champion was trained on; all of them when nothing would be left."""
    trained_on = frozenset() if champion is None else champion.trained_on
    return [index for index in indices if digests[index] not in trained_on] or indices


def _measure(model: ModelFile, files: Sequence[ImageFile], false_alarms: float) -> dict[str, float]:
    session = Session(model, device=settings().device, threads=settings().workers)
    good: list[float] = []
    bad: list[float] = []
    right: list[bool] = []
    classes = session.metadata.classes
    for image, copies in with_damage(files, session.metadata, DEFECTS_PER_IMAGE):
        if classes:
            found = session.run(image.pixels[None], [image.sha256], ("label_probability",))["label_probability"]
            right.append(classes[int(found.argmax())] == group_of(image.file.relative))
        for pixels, scores in ((image.pixels, good), *((copy, bad) for copy in copies)):
            scores.append(float(session.run(pixels[None], [image.sha256], ("score",))["score"][0]))
    calibration = model.calibration()
    figures = {"synthetic_auroc": separation(good, bad)}
    if right:
        figures["accuracy"] = float(np.mean(right))
    if calibration is not None:
        figures |= _kept_promise(calibration, np.array(good), false_alarms)
    return figures


def _kept_promise(calibration: Calibration, good: np.ndarray, false_alarms: float) -> dict[str, float]:
    rate = max(false_alarms, calibration.smallest_rate)  # a champion may have fewer calibration images
    flagged = float((good > calibration.threshold(rate)).mean())
    _, limit = calibration.interval(rate, len(good), level=LEVEL)
    return {"false_alarm_rate": flagged, "false_alarm_limit": limit, "promised_rate": rate}
