"""The charts of a model's page over time: what is drawn of its runs, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.anomaly.drift import LEVEL, SHOWN, name_change
from pipelines.anomaly.image_facts import FACT_NAMES
from pipelines.base.percentages import percent
from pipelines.report import words
from pipelines.report.folder import DriftFacts
from pipelines.report.past_runs import PastRun
from pipelines.report.timeline import Chart, Mark, Scale, Stroke, TimeAxis, draw_bars, draw_dots, draw_line, draw_steps

_LEVELS = 255  # error bars are told in 8-bit levels, but for those of labels
_Z = 1.959964  # of 95 %
_SIDES = ((1.0, "higher"), (0.5, "alike"), (0.0, "lower"))
Values = list[float | None]


def draw_charts(runs: Sequence[PastRun], axis: TimeAxis) -> list[Chart]:
    """Return charts of everything that the runs have.

    Args:
        runs: Of one model, oldest first.
        axis: Where they are.
    """
    unit = name_unit(runs)
    widths = f"how unsure the model is, {'in 8-bit levels' if unit else 'from 0, sure, to 0.5'}."
    drawn = (
        _draw_rates(runs, axis),
        _draw_drift(runs, axis),
        _draw_scores(runs, axis),
        _draw_figure(
            runs, axis, scale_error_bar, unit, least=0.0, id="error-bars", title="Mean error bar",
            lead=f"Mean predicted standard deviation of the results: {widths}",
        ),
        _draw_figure(
            runs, axis, lambda run: run.psnr, " dB", id="psnr", title="PSNR",
            lead="Against the clean images, mean of each run. Higher is better.",
        ),
        _draw_figure(
            runs, axis, lambda run: run.dice, "", id="dice", title="Dice",
            lead="Against the true labels, mean of each run: 1 is the same.",
        ),
        _draw_failed(runs, axis),
        _draw_figure(
            runs, axis, lambda run: run.images_per_second, " images/s", least=0.0, id="throughput", title="Throughput",
            lead="Images per second.",
        ),
    )  # fmt: skip
    return [chart for chart in drawn if chart is not None]


def estimate_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that `count` out of `total` tell of (Wilson's score interval).

    >>> [round(limit, 4) for limit in estimate_interval(5, 100)]
    [0.0215, 0.1118]

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    share, squared = count / total, _Z * _Z / total
    middle = (share + squared / 2) / (1 + squared)
    half = _Z * math.sqrt(share * (1 - share) / total + squared / (4 * total)) / (1 + squared)
    return max(0.0, middle - half) if count else 0.0, min(1.0, middle + half) if count < total else 1.0


def describe_drift(drift: DriftFacts | None) -> str:
    """Return what the test for drift found, in words."""
    if drift is None:
        return words.NONE
    if not drift.drifted:
        return "no drift"
    changed = [each for each in drift.statistics if each.p_value <= LEVEL and each.name in FACT_NAMES]
    if changed:
        return ", ".join(name_change(each.name, each.effect) for each in changed[:SHOWN])
    if drift.flagged_good is not None and drift.p_value > LEVEL:
        return f"about {percent(drift.flagged_good)} of the good images are above the threshold"
    return f"{drift.moved} {'higher' if drift.effect > 0.5 else 'lower'}"


def scale_error_bar(run: PastRun) -> float | None:
    """Return the mean error bar of a run as pages show it."""
    return None if run.error_bar is None else run.error_bar * (1 if run.labels else _LEVELS)


def name_unit(runs: Sequence[PastRun]) -> str:
    """Return the unit of error bars, with a space before it; of labels there is none."""
    return "" if runs[-1].labels else " levels"


def _make_chart(axis: TimeAxis, values: Values, write: Callable[[float], str], **rest: object) -> Chart:
    """Return the chart: what is not given follows from its main values."""
    known = [value for value in values if value is not None]
    said = f"from {write(min(known))} to {write(max(known))}, last {write(known[-1])}"
    label = f"{rest['title']} of {words.plural(len(known), 'run')}, {said}. Arrow keys go from run to run."
    return Chart(label=label, bands=axis.bands(values), **rest)  # type: ignore[arg-type]


def _make_tips(runs: Sequence[PastRun], say: Callable[[PastRun], str | None]) -> tuple[str | None, ...]:
    return tuple(
        f"{words.format_moment(run.moment)}, version {run.version}: {said}" if (said := say(run)) else None
        for run in runs
    )


def _format_number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _format_percent(value: float, decimals: int) -> str:
    return f"{100 * value:.{max(0, decimals - 2)}f}\N{NO-BREAK SPACE}%"


def _draw_rates(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    values = [run.rate for run in runs]
    if all(value is None for value in values):
        return None
    spans = [estimate_interval(run.flagged or 0, run.ok) if run.rate is not None else (None, None) for run in runs]
    promised = [run.promised if run.rate is not None else None for run in runs]
    asked = [run.asked if run.rate is not None else None for run in runs]
    scale = Scale.around([*values, *(high for _, high in spans), *promised, *asked], 190, least=0.0)
    alarmed = [value if run.alarms else None for run, value in zip(runs, values, strict=True)]
    strokes = [
        Stroke("whiskers", draw_bars(axis, scale, *map(list, zip(*spans, strict=True))), min(1.2, axis.dot / 4)),
        Stroke("promise", draw_steps(axis, scale, promised)),
        Stroke("asked", draw_steps(axis, scale, asked)),
        Stroke("trace", draw_line(axis, scale, values)),
        Stroke("dots", draw_dots(axis, scale, values), axis.dot),
        Stroke("dots-alarm", draw_dots(axis, scale, alarmed), axis.dot + 1.5),
    ]
    legend = {
        "dots": "images flagged",
        "whiskers": "95 % interval",
        "promise": "promised false-alarm rate",
        "asked": "requested false-alarm rate",
        "dots-alarm": "run with an alarm",
    }

    def say(run: PastRun) -> str | None:
        if run.rate is None:
            return None
        low, high = (words.format_percent(limit) for limit in estimate_interval(run.flagged or 0, run.ok))
        share = f"{words.format_percent(run.rate)} ({low} to {high})"
        text = f"{run.flagged:,} of {words.plural(run.ok, 'image')} flagged, {share}"
        text += ", against their folder" * run.by_folder
        return f"{text}. Alarm: {'; '.join(run.alarms)}" if run.alarms else text

    return _make_chart(
        axis, values, words.format_percent, id="rates", title="Anomaly rate", height=190,
        lead="Share of the images of each run that were flagged. Upright lines are its 95 % interval, which is wide "
        "for a run of few images." + " Good images stay near the dashed line or below it." * any([*promised, *asked]),
        scale=scale.marks(_format_percent), strokes=_drop_empty(strokes), tips=_make_tips(runs, say),
        legend=_make_legend(strokes, legend),
    )  # fmt: skip


def _draw_drift(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    values = [run.drift.effect if run.drift else None for run in runs]
    if all(value is None for value in values):
        return None
    scale = Scale(-0.08, 1.08, 110)
    drifted = [run.drift.effect if run.drift and run.drift.drifted else None for run in runs]
    alike = [value if there is None else None for value, there in zip(values, drifted, strict=True)]
    middle = [0.5] * len(runs)
    strokes = [
        Stroke("level", draw_line(axis, scale, middle)),
        Stroke("stems", draw_bars(axis, scale, middle, values), min(1.4, axis.dot / 4)),
        Stroke("dots-quiet", draw_dots(axis, scale, alike), axis.dot),
        Stroke("dots", draw_dots(axis, scale, drifted), axis.dot + 1.5),
    ]

    def say(run: PastRun) -> str | None:
        if run.drift is None:
            return None
        return f"{'drift: ' if run.drift.drifted else ''}{describe_drift(run.drift)} (p = {run.drift.p_value:.2g})"

    return _make_chart(
        axis, values, lambda value: f"{value:.0%}", id="drift", title="Drift", height=110,
        lead="How the images of each run compare with the calibration images in what moved most: score, light, colour, "
        "sharpness, noise or place. At either end, every image is beyond every calibration image.",
        scale=tuple(Mark(scale.y(share), text) for share, text in _SIDES), strokes=_drop_empty(strokes),
        tips=_make_tips(runs, say), legend=_make_legend(strokes, {"dots-quiet": "alike", "dots": "drift reported"}),
    )  # fmt: skip


def _draw_scores(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    medians, nineties, tops = ([run.quantiles[place] if run.quantiles else None for run in runs] for place in range(3))
    if all(value is None for value in tops):
        return None
    thresholds = [run.threshold for run in runs]
    scale = Scale.around([*medians, *tops, *thresholds], 170)
    strokes = [
        Stroke("trace-median", draw_line(axis, scale, medians, whole=False)),
        Stroke("trace-ninety", draw_line(axis, scale, nineties, whole=False)),
        Stroke("trace-top", draw_line(axis, scale, tops, whole=False)),
        Stroke("dots-median", draw_dots(axis, scale, medians), 0.7 * axis.dot),
        Stroke("dots-ninety", draw_dots(axis, scale, nineties), 0.7 * axis.dot),
        Stroke("dots-top", draw_dots(axis, scale, tops), 0.7 * axis.dot),
        Stroke("threshold-level", draw_steps(axis, scale, thresholds)),
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
        middle, ninety, top = (words.format_number(value) for value in run.quantiles)
        judged = f", threshold {words.format_number(run.threshold)}" if run.threshold is not None else ""
        return f"median score {middle}, 90 % below {ninety}, 99 % below {top}{judged}"

    return _make_chart(
        axis, tops, words.format_number, id="scores", title="Scores", height=170,
        lead="How unusual the images of each run are to the model. Scores of different versions cannot be compared.",
        scale=scale.marks(_format_number), strokes=_drop_empty(strokes), tips=_make_tips(runs, say),
        legend=_make_legend(strokes, legend),
    )  # fmt: skip


def _draw_figure(
    runs: Sequence[PastRun], axis: TimeAxis, find: Callable[[PastRun], float | None], unit: str,
    *, least: float | None = None, **rest: str,
) -> Chart | None:  # fmt: skip
    """Return the chart of one figure of each run."""
    values = [find(run) for run in runs]
    if all(value is None for value in values):
        return None
    scale = Scale.around(values, 100, least=least)
    strokes = [
        Stroke("trace-quiet", draw_line(axis, scale, values)),
        Stroke("dots-quiet", draw_dots(axis, scale, values), axis.dot),
    ]

    def write(value: float) -> str:
        return f"{words.format_number(value, 3)}{unit}"

    def say(run: PastRun) -> str | None:
        value = find(run)
        return None if value is None else write(value)

    return _make_chart(
        axis, values, write, height=100, scale=scale.marks(_format_number, 4), strokes=_drop_empty(strokes),
        tips=_make_tips(runs, say), legend=(), **rest,
    )  # fmt: skip


def _draw_failed(runs: Sequence[PastRun], axis: TimeAxis) -> Chart | None:
    if not any(run.failed for run in runs):
        return None
    values = [run.failed / run.files if run.files else None for run in runs]
    scale = Scale(0.0, 1.1 * max(value for value in values if value is not None), 100)  # rare ones are what counts
    some = [value or None for value in values]
    strokes = [
        Stroke("stems-failed", draw_bars(axis, scale, [0.0] * len(runs), some)),
        Stroke("dots-failed", draw_dots(axis, scale, some), axis.dot),
    ]

    def say(run: PastRun) -> str | None:
        if not run.files:
            return None
        share = f", {words.format_percent(run.failed / run.files)}" if run.failed else ""
        return f"{run.failed:,} of {words.plural(run.files, 'file')} failed{share}"

    return _make_chart(
        axis, values, words.format_percent, id="failed", title="Failed files", height=100,
        lead="Share of the files of each run that could not be read. Its report has the reasons.",
        scale=scale.marks(_format_percent, 3), strokes=_drop_empty(strokes), tips=_make_tips(runs, say), legend=(),
    )  # fmt: skip


def _drop_empty(strokes: Sequence[Stroke]) -> tuple[Stroke, ...]:
    return tuple(stroke for stroke in strokes if stroke.path)


def _make_legend(strokes: Sequence[Stroke], legend: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the legend of what is drawn."""
    there = {stroke.kind for stroke in strokes if stroke.path}
    return tuple((kind, text) for kind, text in legend.items() if kind in there)
