"""What people should know before they trust the verdicts of a run that scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.anomaly.against import Judgement
from pipelines.anomaly.drift import FEWEST
from pipelines.anomaly.odd_scores import warn_of_odd
from pipelines.anomaly.strangers import Strangers
from pipelines.anomaly.verdicts import Verdicts
from pipelines.base.safe_text import plural
from pipelines.models.model_file import CALIBRATION_FILE, GALLERY_FILE
from pipelines.models.providers import describe_mismatch


def warn_of(
    verdicts: Verdicts,
    judgement: Judgement | None,
    *,
    scored: int,
    ran_on: set[str],
    strangers: Strangers | None,
    missing: Path,
    paths: Iterable[str],
) -> Iterator[str]:
    """Yield warnings of a run, a sentence or two each.

    Args:
        verdicts: The rule, and the run's verdicts once all images are scored.
        judgement: What they are against; None while images are still scored.
        scored: How many images have a score.
        ran_on: Providers of ONNX Runtime that scored them.
        strangers: What is known of images of another subject.
        missing: Where the model's calibration would be.
        paths: Of all images.
    """
    calibration = verdicts.calibration
    if calibration is None:
        yield (
            f"no image has a verdict or a p-value, since {missing} is missing. Copy {CALIBRATION_FILE} and "
            f"{GALLERY_FILE} there from the folder that the model file came from (`kintsugi models show NAME@champion` "
            "prints that folder), or give --calibration FILE, and run the same command again"
        )
    if caution := verdicts.caution(scored):
        yield caution
    if judgement is not None:
        yield from _warn_of_finished(judgement, ran_on, strangers)
    if verdicts.groups is not None:
        yield from verdicts.groups.warn_of_unrepresented(paths)


def _warn_of_finished(judgement: Judgement, ran_on: set[str], strangers: Strangers | None) -> Iterator[str]:
    if judgement.trained_on:
        yield (
            f"the model was trained on {plural(judgement.trained_on, 'image')} of this folder: fewer of them are "
            "flagged than of new ones. Drift is looked for in the others"
        )
    if judgement.blank:
        yield judgement.blank
    if judgement.drift is not None and judgement.drift.drifted:
        yield str(judgement.drift)
    if judgement.why:
        yield f"{judgement.why[0].upper()}{judgement.why[1:]}"
    if strangers is not None and (warning := strangers.warning()):
        yield warning
    calibration, threshold = judgement.run.calibration, judgement.run.threshold
    if calibration is None:
        return
    if judgement.drift is None and calibration.n < FEWEST:
        yield (
            f"Drift was not checked: it needs {FEWEST} calibration images and this model has {calibration.n}. "
            "Train on more good images"
        )
    by_rate = judgement.against == "calibration" and judgement.run.rule is None  # a rate alone sets it
    if by_rate and (warning := warn_of_odd(calibration, threshold, judgement.run.false_alarms)):
        yield warning
    if threshold is not None and (warning := describe_mismatch(calibration.provider, ran_on, threshold)):
        yield warning
