"""The charts of a model's page over time: what is drawn of its runs, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.report import words
from pipelines.report.folder import DriftFacts
from pipelines.report.past_runs import PastRun
from pipelines.report.timeline import Chart, Mark, Scale, Stroke, TimeAxis, bars, dots, line, steps

_LEVELS = 255  # error bars are told in 8-bit levels, but for those of labels
_Z = 1.959964  # of 95 %
_SIDES = ((1.0, "higher"), (0.5, "alike"), (0.0, "lower"))
Values = list[float | None]


def charts(runs: Sequence[PastRun], axis: TimeAxis) -> list[Chart]:
    """Of everything that the runs have.

    Args:
        runs: Of one model, oldest first.
        axis: Where they are.
    """
    made = (_rates, _drift, _scores, _error_bars, _psnr, _dice, _failed, _throughput)
    return [chart for make in made if (chart := make(runs, axis)) is not None]


def interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share that `count` out of `total` tell of (Wilson's score interval).

    >>> [round(limit, 4) for limit in interval(5, 100)]
    [0.0215, 0.1118]

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    share, squared = count / total, _Z * _Z / total
    middle = (share + squared / 2) / (1 + squared)
    half = _Z * math.sqrt(share * (1 - share) / total + squared / (4 * total)) / (1 + squared)
    return max(0.0, middle - half) if count else 0.0, min(1.0, middle + half) if count < total else 1.0


def drift_words(drift: DriftFacts | None) -> str:
    """What the test for drift found, in words."""
    if drift is None:
        return words.NONE
    if not drift.drifted:
        return "no drift"
    return f"{drift.moved} {'higher' if drift.effect > 0.5 else 'lower'}"


def error_bar(run: PastRun) -> float | None:
    """As it is told."""
    return None if run.error_bar is None else run.error_bar * (1 if run.labels else _LEVELS)


def error_bar_unit(runs: Sequence[PastRun]) -> str:
    """Of `error_bar`, with a space before it; of labels there is none."""
    return "" if runs[-1].labels else " levels"


def _chart(axis: TimeAxis, values: Values, write: Callable[[float], str], **rest: object) -> Chart:
    """The rest of a chart, which follows from its main values."""
    known = [value for value in values if value is not None]
    said = f"from {write(min(known))} to {write(max(known))}, last {write(known[-1])}"
    label = f"{rest['title']} of {words.plural(len(known), 'run')}, {said}. Arrow keys go from run to run."
    return Chart(label=label, bands=axis.bands(values), **rest)  # type: ignore[arg-type]


def _tips(runs: Sequence[PastRun], say: Callable[[PastRun], str | None]) -> tuple[str | None, ...]:
    return tuple(
        f"{words.moment(run.moment)}, version {run.version}: {said}" if (said := say(run)) else None for run in runs
    )


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _percent(value: float, decimals: int) -> str:
    return f"{100 * value:.{max(0, decimals - 2)}f}\N{NO-BREAK SPACE}%"


def _rates(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    values = [run.rate for run in runs]
    if all(value is None for value in values):
        return None
    spans = [interval(run.flagged or 0, run.ok) if run.rate is not None else (None, None) for run in runs]
    promised = [run.promised if run.rate is not None else None for run in runs]
    scale = Scale.around([*values, *(high for _, high in spans), *promised], 190, least=0.0)
    alarmed = [value if run.alarms else None for run, value in zip(runs, values, strict=True)]
    strokes = [
        Stroke("whiskers", bars(axis, scale, *map(list, zip(*spans, strict=True))), min(1.2, axis.dot / 4)),
        Stroke("promise", steps(axis, scale, promised)),
        Stroke("trace", line(axis, scale, values)),
        Stroke("dots", dots(axis, scale, values), axis.dot),
        Stroke("dots-alarm", dots(axis, scale, alarmed), axis.dot + 1.5),
    ]
    legend = {
        "dots": "images flagged",
        "whiskers": "95 % interval",
        "promise": "promised false-alarm rate",
        "dots-alarm": "run with an alarm",
    }

    def say(run: PastRun) -> str | None:
        if run.rate is None:
            return None
        low, high = (words.percent(limit) for limit in interval(run.flagged or 0, run.ok))
        text = (
            f"{run.flagged:,} of {words.plural(run.ok, 'image')} flagged, {words.percent(run.rate)} ({low} to {high})"
        )
        return f"{text}. Alarm: {'; '.join(run.alarms)}" if run.alarms else text

    return _chart(
        axis, values, words.percent, id="rates", title="Anomaly rate", height=190,
        lead="Share of the images of each run that were flagged. Upright lines are its 95 % interval: a run of few "
        "images tells little." + " Good images alone stay near the dashed line or below." * any(promised),
        scale=scale.marks(_percent), strokes=_drawn(strokes), tips=_tips(runs, say), legend=_told(strokes, legend),
    )  # fmt: skip


def _drift(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    values = [run.drift.effect if run.drift else None for run in runs]
    if all(value is None for value in values):
        return None
    scale = Scale(-0.08, 1.08, 110)
    drifted = [run.drift.effect if run.drift and run.drift.drifted else None for run in runs]
    alike = [value if there is None else None for value, there in zip(values, drifted, strict=True)]
    middle = [0.5] * len(runs)
    strokes = [
        Stroke("level", line(axis, scale, middle)),
        Stroke("stems", bars(axis, scale, middle, values), min(1.4, axis.dot / 4)),
        Stroke("dots-quiet", dots(axis, scale, alike), axis.dot),
        Stroke("dots", dots(axis, scale, drifted), axis.dot + 1.5),
    ]

    def say(run: PastRun) -> str | None:
        if run.drift is None:
            return None
        return f"{'drift: ' if run.drift.drifted else ''}{drift_words(run.drift)} (p = {run.drift.p_value:.2g})"

    return _chart(
        axis, values, lambda value: f"{value:.0%}", id="drift", title="Drift", height=110,
        lead="How the images of each run compare with the calibration images in what moved most: score, brightness, "
        "contrast or detail. At either end, every image is beyond every calibration image.",
        scale=tuple(Mark(scale.y(share), text) for share, text in _SIDES), strokes=_drawn(strokes),
        tips=_tips(runs, say), legend=_told(strokes, {"dots-quiet": "alike", "dots": "drift reported"}),
    )  # fmt: skip


def _scores(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    medians, nineties, tops = ([run.quantiles[place] if run.quantiles else None for run in runs] for place in range(3))
    if all(value is None for value in tops):
        return None
    thresholds = [run.threshold for run in runs]
    scale = Scale.around([*medians, *tops, *thresholds], 170)
    strokes = [
        Stroke("trace-median", line(axis, scale, medians, whole=False)),
        Stroke("trace-ninety", line(axis, scale, nineties, whole=False)),
        Stroke("trace-top", line(axis, scale, tops, whole=False)),
        Stroke("dots-median", dots(axis, scale, medians), 0.7 * axis.dot),
        Stroke("dots-ninety", dots(axis, scale, nineties), 0.7 * axis.dot),
        Stroke("dots-top", dots(axis, scale, tops), 0.7 * axis.dot),
        Stroke("threshold-level", steps(axis, scale, thresholds)),
    ]
    legend = {
        "threshold-level": "threshold",
        "trace-top": "99 % of the images are below",
        "trace-ninety": "90 %",
        "trace-median": "median",
    }

    def say(run: PastRun) -> str | None:
        if run.quantiles is None:
            return None
        middle, ninety, top = (words.number(value) for value in run.quantiles)
        judged = f", threshold {words.number(run.threshold)}" if run.threshold is not None else ""
        return f"median score {middle}, 90 % below {ninety}, 99 % below {top}{judged}"

    return _chart(
        axis, tops, words.number, id="scores", title="Scores", height=170,
        lead="How unusual the images of each run are to the model. Scores of different versions cannot be compared.",
        scale=scale.marks(_number), strokes=_drawn(strokes), tips=_tips(runs, say), legend=_told(strokes, legend),
    )  # fmt: skip


def _error_bars(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    unit = error_bar_unit(runs)
    lead = "Mean predicted standard deviation of what was made: how unsure the model is" + (
        ", from 0, sure, to 0.5." if not unit else ", in 8-bit levels."
    )
    values = [error_bar(run) for run in runs]
    return _single(runs, axis, values, unit, least=0.0, id="error-bars", title="Mean error bar", lead=lead)


def _psnr(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    lead = "Against the clean images, mean of each run. Higher is better."
    return _single(runs, axis, [run.psnr for run in runs], " dB", id="psnr", title="PSNR", lead=lead)


def _dice(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    lead = "Against the true labels, mean of each run: 1 is the same."
    return _single(runs, axis, [run.dice for run in runs], "", id="dice", title="Dice", lead=lead)


def _throughput(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    values = [run.images_per_second for run in runs]
    lead = "Images per second."
    return _single(runs, axis, values, " images/s", least=0.0, id="throughput", title="Throughput", lead=lead)


def _single(
    runs: Sequence[PastRun], axis: TimeAxis, values: Values, unit: str, *, least: float | None = None, **rest: str
) -> Chart | None:
    """One figure of each run."""
    if all(value is None for value in values):
        return None
    scale = Scale.around(values, 100, least=least)
    strokes = [
        Stroke("trace-quiet", line(axis, scale, values)),
        Stroke("dots-quiet", dots(axis, scale, values), axis.dot),
    ]
    said = {
        run.folder: f"{words.number(value, 3)}{unit}"
        for run, value in zip(runs, values, strict=True)
        if value is not None
    }
    return _chart(
        axis, values, lambda value: f"{words.number(value, 3)}{unit}", height=100, scale=scale.marks(_number, 4),
        strokes=_drawn(strokes), tips=_tips(runs, lambda run: said.get(run.folder)), legend=(), **rest,
    )  # fmt: skip


def _failed(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    if not any(run.failed for run in runs):
        return None
    values = [run.failed / run.files if run.files else None for run in runs]
    scale = Scale(0.0, 1.1 * max(value for value in values if value is not None), 100)  # rare ones are what counts
    some = [value or None for value in values]
    strokes = [
        Stroke("stems-failed", bars(axis, scale, [0.0] * len(runs), some)),
        Stroke("dots-failed", dots(axis, scale, some), axis.dot),
    ]

    def say(run: PastRun) -> str | None:
        if not run.files:
            return None
        share = f", {words.percent(run.failed / run.files)}" if run.failed else ""
        return f"{run.failed:,} of {words.plural(run.files, 'file')} failed{share}"

    return _chart(
        axis, values, words.percent, id="failed", title="Failed files", height=100,
        lead="Share of the files of each run that could not be read; why is in its report.",
        scale=scale.marks(_percent, 3), strokes=_drawn(strokes), tips=_tips(runs, say), legend=(),
    )  # fmt: skip


def _drawn(strokes: Sequence[Stroke]) -> tuple[Stroke, ...]:
    return tuple(stroke for stroke in strokes if stroke.path)


def _told(strokes: Sequence[Stroke], legend: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The legend of what is drawn."""
    there = {stroke.kind for stroke in strokes if stroke.path}
    return tuple((kind, text) for kind, text in legend.items() if kind in there)
