"""The promotion rule: a challenger against today's champion, both measured in the same run on the same images.

The figure is the AUROC with which a model tells held-out good images from the same images with synthetic defects:
both models can have it, whatever they call a likelihood, where their ELBOs could not be compared. And a challenger has
to keep its false-alarm rate, promised or asked, on good images that it was not fitted to. (These images also set the
scale of a cross calibration's threshold.) Where both tell classes of images, it must tell them as well, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.figures_of_merit import separation, weighted_separation
from pipelines.anomaly.group_thresholds import group_of
from pipelines.anomaly.rate_claim import ASSUMPTION
from pipelines.base.percentages import percent
from pipelines.base.safe_text import printable
from pipelines.base.subsample import evenly_spaced
from pipelines.data.pieces import with_their_pieces
from pipelines.data.synthetic_defects import decode_with_defects
from pipelines.data.training_images import TrainingData
from pipelines.images import ImageFile
from pipelines.jobfile.tables import PromoteTable
from pipelines.models.model_file import ModelFile
from pipelines.models.session import Session
from pipelines.review.uses import AuditedImage
from pipelines.settings import settings
from pipelines.training.calibrate import score_files

log = logging.getLogger(__name__)
DEFECTS_PER_IMAGE = 2
FEWEST_DEFECTS, FEWEST_GOOD = 10, 20  # audited images that are enough to judge by
BOOTSTRAPS, LEVEL_OF_GAIN = 300, 0.95  # upper end of the interval for what a challenger gains on audited images
CHANCE = 0.05  # that a model which tells classes as well looks worse
COMPARED_WINDOWS, FEWEST_COMPARED = 3_000, 8  # windows of models of windows, that both score; images all the same
LEVEL = 0.99  # of the interval that the realised false-alarm rate has to stay under


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to promote, in words, and the figures behind it."""

    promote: bool
    reason: str
    figures: dict[str, float]


def decide(
    challenger: ModelFile,
    champion: ModelFile | None,
    data: TrainingData,
    table: PromoteTable,
    false_alarms: float,
    audited: Sequence[AuditedImage] = (),
) -> Decision:
    """Measure challenger and champion, and apply the job's rule.

    Args:
        challenger: The new bundle; parity with torch has been checked.
        champion: Today's champion; None when there is none.
        data: Of the challenger; its select split is what both are measured on.
        table: The job's rule.
        false_alarms: The rate asked, which the challenger's calibration allows.
        audited: Images that people have answered in audits; once they are enough, they judge in place of synthetic
            defects. Defects that the champion found would favour it: these were chosen by chance.
    """
    files = _unseen(data, champion)
    sessions = [
        Session(model, device=settings().device, threads=settings().workers)
        for model in (challenger, champion)
        if model is not None
    ]
    most = min(each.metadata.images_within(COMPARED_WINDOWS, least=FEWEST_COMPARED) for each in sessions)
    files = evenly_spaced(files, most)
    judges = _find_judges(audited, challenger, champion)
    if champion is not None and not files and (not judges or any(each.metadata.classes for each in sessions)):
        reason = (
            "no image is left to compare it on that neither it nor the champion was fitted to: add good images, or "
            "move the alias by hand with `kintsugi models promote`"
        )
        return Decision(promote=table.rule == "always", reason=reason, figures={"images": 0.0})
    mine, right = _measure(sessions[0], files, false_alarms)
    figures = {f"challenger_{name}": value for name, value in mine.items()} | {"images": float(len(files))}
    if champion is None:
        promote = table.rule != "never"
        return Decision(
            promote, "the first version; its exported file gives the scores of the trained network", figures
        )
    theirs, champion_right = _measure(sessions[1], files, false_alarms)
    figures |= {f"champion_{name}": value for name, value in theirs.items()}
    told = _compare_classes(right, champion_right, table.tolerance)
    if table.rule != "better":
        return Decision(table.rule == "always", f"the job's rule is '{table.rule}'", figures)
    if judges:
        figures |= _measure_audited(sessions, judges)
        defects = sum(each.is_defect for each in judges)
        good = len(judges) - defects
        gain = figures["audit_gain_high"]  # a few answers are no evidence against a version that looks a little worse
        comparison = (
            f"AUROC {figures['challenger_audit_auroc']:.4f} against the champion's "
            f"{figures['champion_audit_auroc']:.4f} on audited images ({defects} defective, {good} good)"
        )
    else:
        gain = mine["synthetic_auroc"] - theirs["synthetic_auroc"]
        comparison = (
            f"AUROC on synthetic defects {mine['synthetic_auroc']:.4f} against the champion's "
            f"{theirs['synthetic_auroc']:.4f} on {len(files)} held-out images"
        )
    if not files:
        comparison += "; its false alarms were not measured: no good image is left that neither model was fitted to"
    is_proved = "false_alarm_limit" in mine
    limit = mine.get("false_alarm_limit" if is_proved else "assumed_false_alarm_limit", 1.0)
    if mine.get("false_alarm_rate", 0.0) > limit:
        allowed = "its promise allows by chance" if is_proved else f"the rate asked allows by chance, {ASSUMPTION}"
        reason = (
            f"it flags {percent(mine['false_alarm_rate'])} of good images, more than {allowed} ({percent(limit)}); "
            f"{comparison}"
        )
        return Decision(promote=False, reason=reason, figures=figures)
    if gain < -table.tolerance:
        return Decision(promote=False, reason=f"worse: {comparison} (tolerance {table.tolerance:g})", figures=figures)
    if told is not None:
        if told.lost:
            return Decision(promote=False, reason=f"worse: {told.words}; {comparison}", figures=figures)
        comparison = f"{told.words}; {comparison}"
    return Decision(promote=True, reason=f"not worse: {comparison}", figures=figures)


def _find_judges(
    audited: Sequence[AuditedImage], challenger: ModelFile, champion: ModelFile | None
) -> list[AuditedImage]:
    """Return the audited images that neither model was trained on; none where they are too few to judge."""
    if champion is None:
        return []
    judges = [each for each in audited if each.sha256 not in challenger.trained_on | champion.trained_on]
    defects = sum(each.is_defect for each in judges)
    return judges if defects >= FEWEST_DEFECTS and len(judges) - defects >= FEWEST_GOOD else []


def _measure_audited(sessions: Sequence[Session], images: Sequence[AuditedImage]) -> dict[str, float]:
    """AUROC of both models on audited images, each of which counts for the images of its run that it stands for.

    With the upper end of an interval for what the challenger gains: both are measured on images drawn again.
    """
    files = [each.file for each in images]
    scores = [score_files(session, files) for session in sessions]
    read = [each for each in images if all(each.sha256 in found for found in scores)]
    parts = [[each for each in read if each.is_defect is kind] for kind in (False, True)]

    def measure(found: dict[str, float], drawn: Sequence[Sequence[AuditedImage]]) -> float:
        return weighted_separation(*([(found[each.sha256], each.weight) for each in part] for part in drawn))

    random = np.random.default_rng(0)
    gains = []
    for _ in range(BOOTSTRAPS):
        drawn = [[part[place] for place in random.integers(len(part), size=len(part))] for part in parts if part]
        if len(drawn) == 2:
            gains.append(measure(scores[0], drawn) - measure(scores[1], drawn))
    own, other = (measure(found, parts) for found in scores)
    return {
        "challenger_audit_auroc": own,
        "champion_audit_auroc": other,
        "audit_gain_high": float(np.quantile(gains, LEVEL_OF_GAIN)) if gains else own - other,
    }


def _unseen(data: TrainingData, champion: ModelFile | None) -> list[ImageFile]:
    """The challenger's select split, less what its score is standardised by, and what the champion was fitted to."""
    judging = [index for index in data.split["select"] if index not in data.split.get("scale", ())]
    return [data.files[index] for index in find_unseen(champion, judging, data.sha256, data.pieces)]


def find_unseen(
    champion: ModelFile | None, indices: Sequence[int], digests: Sequence[str], pieces: Sequence[str] = ()
) -> Sequence[int]:
    """Some images, less those that a champion was trained on, and others of their pieces; perhaps none."""
    trained_on = frozenset() if champion is None else champion.trained_on
    known = with_their_pieces((i for i, digest in enumerate(digests) if digest in trained_on), pieces)
    return [index for index in indices if index not in known]


def _measure(
    session: Session, files: Sequence[ImageFile], false_alarms: float
) -> tuple[dict[str, float], dict[str, list[bool]]]:
    """Figures of a model, and by class whether it told the images of that class right, where it knows classes.

    No images, no figures.
    """
    if not files:
        return {}, {}
    good: list[float] = []
    bad: list[float] = []
    right: dict[str, list[bool]] = {name: [] for name in session.metadata.classes}
    outputs = ("score", "label_probability") if right else ("score",)
    for image, copies in decode_with_defects(files, session.metadata, DEFECTS_PER_IMAGE):
        found = session.run(image.pixels[None], [image.sha256], outputs)
        good.append(float(found["score"][0]))
        if right:
            told = session.metadata.classes[int(found["label_probability"][0].argmax())]
            right.setdefault(name := group_of(image.file.relative), []).append(told == name)
        for pixels in copies:
            bad.append(float(session.run(pixels[None], [image.sha256], ("score",))["score"][0]))
    calibration = session.model.calibration()
    figures = {"synthetic_auroc": separation(good, bad)}
    if right:
        figures["accuracy"] = float(np.mean([each for of_class in right.values() for each in of_class]))
    if calibration is not None:
        figures |= _measure_false_alarms(calibration, np.array(good), false_alarms)
    return figures, right


@dataclass(frozen=True, slots=True)
class _Told:
    """How well a challenger tells classes, by the champion's measure."""

    lost: bool
    words: str


def _compare_classes(mine: dict[str, list[bool]], theirs: dict[str, list[bool]], tolerance: float) -> _Told | None:
    """Whether a challenger tells classes worse than a champion that knows some; None where that knows none.

    Worse is what chance makes of equally good models in one of twenty cases at most: the exact test of McNemar 1947,
    "Note on the sampling error of the difference between correlated proportions".
    """
    if not theirs:
        return None
    if missing := sorted(theirs.keys() - mine.keys()):
        words = f"it knows no class {', '.join(map(printable, missing))}, which the champion tells"
        return _Told(lost=True, words=f"{words}: give such a model a name of its own")
    own, other = (np.concatenate([each[name] for name in sorted(theirs)]).astype(bool) for each in (mine, theirs))
    worse, better = int((other & ~own).sum()), int((own & ~other).sum())
    by_chance = float(binom.sf(worse - 1, worse + better, 0.5)) if worse else 1.0
    lost = by_chance < CHANCE and own.mean() < other.mean() - tolerance
    return _Told(
        lost, f"class right for {percent(own.mean())} of {len(own)} held-out images against {percent(other.mean())}"
    )


def _measure_false_alarms(calibration: Calibration, good: np.ndarray, false_alarms: float) -> dict[str, float]:
    """The realised rate, the most that chance explains, and the rate itself: named apart where they are not proved."""
    rate = max(false_alarms, calibration.smallest_rate)  # a champion may have fewer calibration images
    flagged = float((good > calibration.threshold(rate)).mean())
    _, limit = calibration.interval(rate, len(good), level=LEVEL)
    if calibration.is_proved:
        return {"false_alarm_rate": flagged, "false_alarm_limit": limit, "promised_rate": rate}
    return {"false_alarm_rate": flagged, "assumed_false_alarm_limit": limit, "asked_rate": rate}
