"""Geometry of charts over time: a time axis that all charts of a page share, scales, and lines as paths.

Charts are `WIDTH` units wide. All coordinates are in these units, from the upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

WIDTH = 1100
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 26, 28  # around the plot; above it are the versions, below it the dates
_MOST_DATES = 9
_APART = 64  # between two versions that are named
_NARROWEST = 1.0  # of what can be pointed at
_REACH = 1.0  # how many spans of the middle 96 % a scale reaches beyond it; farther values are drawn at its end
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (*(_MINUTE * n for n in (1, 5, 15, 30)), *(_HOUR * n for n in (1, 3, 6, 12)), *(_DAY * n for n in (1, 2, 7)))
_MONTHS = (1, 3, 6, 12, 24, 60, 120, 300, 600)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONDAY = 4 * _DAY  # the first after 1970 began


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on an axis, and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Stroke:
    """One path and what it is; `width` where it depends on how many runs there are."""

    kind: str
    path: str
    width: float | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """What a run is pointed at by: a strip as high as the plot."""

    left: float
    width: float
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One drawing.

    Attributes:
        id: of its section.
        height: of the plot.
        label: what a screen reader says of it.
        scale: what is written at the left.
        strokes: in the order that they are drawn in.
        tips: what is said of a run, by its place among the runs; None: nothing is drawn of it.
        bands: which runs can be pointed at, and where.
        legend: kinds of strokes with what they mean.
    """

    id: str
    title: str
    lead: str
    height: int
    label: str
    scale: tuple[Mark, ...]
    strokes: tuple[Stroke, ...]
    tips: tuple[str | None, ...]
    bands: tuple[Band, ...]
    legend: tuple[tuple[str, str], ...]


class TimeAxis:
    """Where runs are, from left to right.

    Attributes:
        x: Places of the runs.
        edges: Limits between neighbouring runs, one more than runs: half-way.
        dates: What is written below.
        breaks: Runs whose version is another one than that of the run before.
        changes: Where these begin, with the name of the version where there is room, after the first of all versions;
            empty where there is one version only.
    """

    def __init__(self, times: Sequence[float], versions: Sequence[str]) -> None:
        """Lay out runs.

        Args:
            times: When they were, in seconds since 1970, rising; at least one.
            versions: Of the model, one for each.
        """
        first, last = times[0], times[-1]
        margin = max(0.012 * (last - first), 30.0) if last > first else _DAY / 2
        low, high = first - margin, last + margin
        right = WIDTH - RIGHT

        def place(time: float) -> float:
            return round(LEFT + (time - low) / (high - low) * (right - LEFT), 1)

        self.x = [place(time) for time in times]
        self.edges = [float(LEFT), *(round((a + b) / 2, 1) for a, b in pairwise(self.x)), float(right)]
        self.dates = [Mark(place(time), text) for time, text in choose_dates(low, high)]
        self.breaks = [i for i in range(1, len(versions)) if versions[i] != versions[i - 1]]
        self.changes = [Mark(float(LEFT), versions[0])] if self.breaks else []
        named = float(LEFT)
        for i in self.breaks:
            room = self.edges[i] - named >= _APART
            named = self.edges[i] if room else named
            self.changes.append(Mark(self.edges[i], versions[i] if room else ""))

    @property
    def dot(self) -> float:
        """How wide a run's dot is: narrow where there are many."""
        return float(np.clip(1.1 * (WIDTH - LEFT - RIGHT) / len(self.x), 2.6, 7.5))

    def bands(self, values: Sequence[float | None]) -> tuple[Band, ...]:
        """Strips to point at; where runs are too close for one each, the strip is of the highest value."""
        found: list[Band] = []
        left, best = self.edges[0], None
        for i, value in enumerate(values):
            if value is not None and (best is None or value > (values[best] or 0.0)):
                best = i
            right = self.edges[i + 1]
            if right - left < _NARROWEST and i + 1 < len(values):
                continue
            if best is not None:
                found.append(Band(left, round(right - left, 1), best))
            left, best = right, None
        return tuple(found)


class Scale:
    """Where values are, from the bottom to the top of a plot."""

    def __init__(self, low: float, high: float, height: int) -> None:
        """From `low` at the bottom to `high` at the top, further where floats tell no round values between them."""
        span = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-200) if high > low else 1.0
        self.low, self.high, self.height = low, low + span, height

    @classmethod
    def around(cls, values: Iterable[float | None], height: int, *, least: float | None = None) -> Scale:
        """A scale that a few extreme values cannot stretch.

        Args:
            values: What it is for.
            height: Of the plot.
            least: What is at the bottom; None: as the values ask for.
        """
        known = np.array([value for value in values if value is not None])
        if not len(known):
            return cls(least or 0.0, (least or 0.0) + 1.0, height)
        bottom, lower, upper, top = np.quantile(known, [0.0, 0.02, 0.98, 1.0]).tolist()
        reach = _REACH * (upper - (lower if least is None else least))
        low, high = max(bottom, lower - reach), min(top, upper + reach)
        margin = 0.08 * (high - (low if least is None else least)) or 0.1 * abs(high) or 1.0
        return cls(low - margin if least is None else least, high + margin, height)

    def y(self, value: float) -> float:
        """Where a value is drawn: one beyond the scale at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(TOP + self.height * (1 - share), 1)

    def marks(self, write: Callable[[float, int], str], count: int = 5) -> tuple[Mark, ...]:
        """Round values with what is written at them; `write` is given the value and its decimals."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9)) * power
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(Mark(self.y(i * step), write(i * step, decimals)) for i in range(first, last + 1))


def draw_line(axis: TimeAxis, scale: Scale, values: Sequence[float | None], *, whole: bool = True) -> str:
    """From run to run, but not over one without a value; if not `whole`, nor from one version to another."""
    breaks = () if whole else frozenset(axis.breaks)
    pieces, pen = [], "M"
    for i, value in enumerate(values):
        if value is None or i in breaks:
            pen = "M"
        if value is not None:
            pieces.append(f"{pen}{axis.x[i]} {scale.y(value)}")
            pen = "L"
    return "".join(pieces)


def draw_steps(axis: TimeAxis, scale: Scale, values: Sequence[float | None]) -> str:
    """A level for each run, as wide as what belongs to it."""
    pieces: list[str] = []
    before: float | None = None
    for i, value in enumerate(values):
        if value is None:
            before = None
            continue
        y = scale.y(value)
        if before is None:
            pieces.append(f"M{axis.edges[i]} {y}")
        elif before != y:
            pieces.append(f"V{y}")
        elif pieces[-1].startswith("H"):
            pieces.pop()
        pieces.append(f"H{axis.edges[i + 1]}")
        before = y
    return "".join(pieces)


def draw_dots(axis: TimeAxis, scale: Scale, values: Sequence[float | None]) -> str:
    """A dot for each run: lines without length, which round ends make dots of."""
    return "".join(f"M{axis.x[i]} {scale.y(value)}h0" for i, value in enumerate(values) if value is not None)


def draw_bars(axis: TimeAxis, scale: Scale, lows: Sequence[float | None], highs: Sequence[float | None]) -> str:
    """An upright line for each run, between two values."""
    return "".join(
        f"M{axis.x[i]} {scale.y(low)}V{scale.y(high)}"
        for i, (low, high) in enumerate(zip(lows, highs, strict=True))
        if low is not None and high is not None
    )


def choose_dates(low: float, high: float) -> list[tuple[float, str]]:
    """Round times between two, in UTC, at most nine, and how they are written.

    >>> [text for _, text in choose_dates(1792972800, 1793404800)]
    ['26 Oct 2026', '27 Oct', '28 Oct', '29 Oct', '30 Oct', '31 Oct']
    """
    step = next((step for step in _STEPS if (high - low) / step <= _MOST_DATES - 1), None)
    if step is not None:
        origin = _MONDAY if step == 7 * _DAY else 0
        count = range(math.ceil((low - origin) / step), math.floor((high - origin) / step) + 1)
        times = [datetime.fromtimestamp(0, UTC) + timedelta(seconds=origin + i * step) for i in count]
    else:
        times = _months(low, high)
    written: list[tuple[float, str]] = []
    before: datetime | None = None
    yearly = step is None and all(time.month == 1 for time in times)
    for time in times:
        year = "" if before is not None and before.year == time.year else f" {time.year}"
        if yearly:
            text = str(time.year)
        elif step is None:
            text = f"{_NAMES[time.month - 1]}{year}"
        elif step >= _DAY or before is None or before.date() != time.date():
            text = f"{time.day} {_NAMES[time.month - 1]}{year}"
            text += f", {time:%H:%M}" if step < _DAY and time.hour + time.minute else ""
        else:
            text = f"{time:%H:%M}"
        written.append((time.timestamp(), text))
        before = time
    return written


def _months(low: float, high: float) -> list[datetime]:
    """First days of months, evenly apart."""
    first, last = (datetime.fromtimestamp(time, UTC) for time in (low, high))
    begin, end = 12 * first.year + first.month, 12 * last.year + last.month - 1  # counted from 0; begin is past `low`
    step = next((step for step in _MONTHS if (end - begin) / step <= _MOST_DATES - 1), _MONTHS[-1])
    counted = range(-(-begin // step) * step, end + 1, step)
    return [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in counted]
