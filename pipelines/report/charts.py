"""Figures of merit of an evaluated run, laid out for the page's drawings."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.report.folder import Evaluation
from pipelines.report.histogram import thin

_SIDE = 280  # of the square that the ROC curve is drawn in, in units of its drawing
_CHANCE = 0.5  # AUROC of guessing


@dataclass(frozen=True, slots=True)
class DefectRow:
    """One kind of defect. AUROC is drawn on a bar from 0 to 1: its value is its place on it."""

    name: str
    n: int
    image_auroc: float | None
    interval: tuple[float, float] | None
    image_ap: float | None
    pixel_auroc: float | None
    aupro: float | None
    tpr: float | None

    @property
    def is_worse_than_chance(self) -> bool:
        """Whether good images score higher than these."""
        return self.image_auroc is not None and self.image_auroc < _CHANCE


@dataclass(frozen=True, slots=True)
class EvaluationFigures:
    """What the evaluation section shows.

    Attributes:
        source: the figures as evaluation.json has them.
        claim: what the false-alarm rate rests on.
        roc: the curve as a path in a square of `side` units; None where there is none.
        point: place of the threshold on the curve, in the same units.
        alarm_bar: asked rate, realised rate and interval as shares of the bar's length.
        alarm_scale: the rate at the right end of that bar.
        alarm_words: whether the realised rate is what chance allows.
        defects: one row a kind, hardest first.
    """

    source: Evaluation
    claim: RateClaim
    side: int
    roc: str | None
    point: tuple[float, float] | None
    alarm_bar: dict[str, float] | None
    alarm_scale: float
    alarm_words: str | None
    defects: tuple[DefectRow, ...]


def lay_out_evaluation(evaluation: Evaluation) -> EvaluationFigures:
    """Lay an evaluation out."""
    bar, scale = _lay_out_alarm(evaluation)
    rows = [
        DefectRow(
            name=name,
            n=defect.n,
            image_auroc=defect.image_auroc,
            interval=defect.image_auroc_interval,
            image_ap=defect.image_ap,
            pixel_auroc=defect.pixel_auroc,
            aupro=defect.aupro,
            tpr=defect.tpr_at_threshold,
        )
        for name, defect in evaluation.defects.items()
    ]
    rows.sort(key=lambda row: (row.image_auroc is None, row.image_auroc or 0.0, row.name))
    return EvaluationFigures(
        source=evaluation,
        claim=evaluation.calibration or RateClaim(),
        side=_SIDE,
        roc=_draw_roc(evaluation.roc),
        point=_place_point(evaluation.fpr_at_threshold, evaluation.tpr_at_threshold),
        alarm_bar=bar,
        alarm_scale=scale,
        alarm_words=_describe_alarm(evaluation),
        defects=tuple(rows),
    )


def _draw_roc(roc: tuple[tuple[float, float], ...]) -> str | None:
    if len(roc) < 2:
        return None
    return "M" + "L".join(f"{_SIDE * fpr:.1f} {_SIDE * (1 - tpr):.1f}" for fpr, tpr in thin(roc))


def _place_point(fpr: float | None, tpr: float | None) -> tuple[float, float] | None:
    return None if fpr is None or tpr is None else (round(_SIDE * fpr, 1), round(_SIDE * (1 - tpr), 1))


def _lay_out_alarm(evaluation: Evaluation) -> tuple[dict[str, float] | None, float]:
    """The asked and the realised false-alarm rate on one scale that starts at zero."""
    realised, interval, asked = evaluation.fpr_at_threshold, evaluation.fpr_interval, evaluation.false_alarms
    if realised is None or interval is None:
        return None, 1.0
    rates = {"realised": realised, "low": interval[0], "high": interval[1]}
    if asked is not None:
        rates["asked"] = asked
    scale = min(1.0, 1.25 * max(0.01, *rates.values()))
    return {name: round(min(1.0, rate / scale), 4) for name, rate in rates.items()}, scale


def _describe_alarm(evaluation: Evaluation) -> str | None:
    realised, interval = evaluation.fpr_at_threshold, evaluation.fpr_interval
    if realised is None or interval is None:
        return None
    proved = evaluation.calibration is None or evaluation.calibration.is_proved
    other = "" if proved else ", or the deployed model scores otherwise than the fold models"
    if realised > interval[1]:
        return f"more than chance explains: these good images differ from the calibration images{other}"
    if realised < interval[0]:
        return f"fewer than expected: these good images are easier than the calibration images{other}"
    return "within what chance allows"
