"""Geometry of charts over time, against figures worked out by hand."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest

from pipelines.report.past_charts import estimate_interval
from pipelines.report.timeline import (
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    TimeAxis,
    choose_dates,
    draw_bars,
    draw_dots,
    draw_line,
    draw_steps,
)

DAY = 86_400.0
PLOT = WIDTH - RIGHT - LEFT


def test_runs_are_where_their_time_is() -> None:
    axis = TimeAxis([0.0, 10 * DAY, 40 * DAY], ["1", "1", "2"])
    whole = 40 * 1.024  # days, the margins of 1.2 % included
    assert axis.x == [pytest.approx(LEFT + PLOT * (day + 0.48) / whole, abs=0.06) for day in (0, 10, 40)]
    middles = [(a + b) / 2 for a, b in pairwise(axis.x)]
    assert axis.edges == pytest.approx([LEFT, *middles, WIDTH - RIGHT], abs=0.06)
    assert (axis.breaks, axis.changes[1].at) == ([2], axis.edges[2])


def test_one_run_is_in_the_middle() -> None:
    axis = TimeAxis([5 * DAY], ["1"])
    assert axis.x == [(LEFT + WIDTH - RIGHT) / 2]
    assert (axis.breaks, axis.changes) == ([], [])
    assert [mark.text for mark in axis.dates]


def test_versions_without_room_are_marked_but_not_named() -> None:
    axis = TimeAxis([DAY * day for day in range(100)], [str(day) for day in range(100)])
    assert len(axis.changes) == 100
    named = [change.at for change in axis.changes if change.text]
    assert 10 < len(named) < 20
    assert min(b - a for a, b in pairwise(named)) >= 64


def test_a_scale_is_not_stretched_by_one_run_in_a_hundred() -> None:
    scale = Scale.around([*([1.0, 2.0] * 100), 50.0, None], 100)
    assert scale.high < 4
    assert scale.y(50.0) == TOP
    assert scale.y(scale.low) == TOP + 100
    assert Scale.around([None], 100).y(0.0) == TOP + 100
    assert Scale.around([3.0, 3.0], 100).y(3.0) == pytest.approx(TOP + 50)


def test_marks_are_round() -> None:
    assert [mark.text for mark in Scale(0.0, 0.07, 100).marks(lambda value, digits: f"{value:.{digits}f}")] == [
        "0.00", "0.02", "0.04", "0.06",
    ]  # fmt: skip
    marks = Scale(-1.0, 3.0, 100).marks(lambda value, _: f"{value:g}", 4)
    assert [(mark.at, mark.text) for mark in marks] == [
        (TOP + 100, "-1"), (TOP + 75, "0"), (TOP + 50, "1"), (TOP + 25, "2"), (TOP, "3"),
    ]  # fmt: skip


def test_paths_pass_over_what_is_missing_and_break_at_another_version() -> None:
    axis = TimeAxis([0.0, DAY, 2 * DAY, 3 * DAY], ["1", "1", "2", "2"])
    scale = Scale(0.0, 10.0, 100)
    a, b, c, d = axis.x
    values = [0.0, None, 10.0, 5.0]
    assert draw_line(axis, scale, values) == f"M{a} 126.0M{c} 26.0L{d} 76.0"
    assert draw_line(axis, scale, [0.0, 0.0, 10.0, 5.0]) == f"M{a} 126.0L{b} 126.0L{c} 26.0L{d} 76.0"
    assert draw_line(axis, scale, [0.0, 0.0, 10.0, 5.0], whole=False) == f"M{a} 126.0L{b} 126.0M{c} 26.0L{d} 76.0"
    assert draw_dots(axis, scale, values) == f"M{a} 126.0h0M{c} 26.0h0M{d} 76.0h0"
    assert draw_bars(axis, scale, [0.0] * 4, values) == f"M{a} 126.0V126.0M{c} 126.0V26.0M{d} 126.0V76.0"
    edges = axis.edges
    assert draw_steps(axis, scale, [5.0, 5.0, None, 0.0]) == f"M{edges[0]} 76.0H{edges[2]}M{edges[3]} 126.0H{edges[4]}"
    assert draw_steps(axis, scale, [5.0, 0.0, 0.0, 0.0]) == f"M{edges[0]} 76.0H{edges[1]}V126.0H{edges[4]}"


def test_every_run_can_be_pointed_at_until_they_are_too_close() -> None:
    axis = TimeAxis([DAY * day for day in range(900)], ["1"] * 900)
    assert [band.run for band in axis.bands([0.0] * 900)] == list(range(900))
    axis = TimeAxis([DAY * day for day in range(5000)], ["1"] * 5000)
    values = [1.0 if day == 1234 else 0.0 for day in range(5000)]
    bands = axis.bands(values)
    assert len(bands) <= PLOT
    assert 1234 in {band.run for band in bands}
    assert sum(band.width for band in bands) == pytest.approx(PLOT, abs=1)
    assert axis.bands([None] * 5000) == ()


@pytest.mark.parametrize(
    ("start", "end", "texts"),
    [
        ("2026-11-21T22:10", "2026-11-22T02:10", "21 Nov 2026, 22:30|23:00|23:30|22 Nov|00:30|01:00|01:30|02:00"),
        ("2026-11-20T02:00", "2026-11-22T02:00", "20 Nov 2026, 06:00|12:00|18:00|21 Nov|06:00|12:00|18:00|22 Nov"),
        ("2026-12-30T00:00", "2027-01-06T00:00", "30 Dec 2026|31 Dec|1 Jan 2027|2 Jan|3 Jan|4 Jan|5 Jan|6 Jan"),
        ("2026-11-01T00:00", "2026-12-01T00:00", "2 Nov 2026|9 Nov|16 Nov|23 Nov|30 Nov"),
        ("2026-11-15T00:00", "2027-06-03T00:00", "Dec 2026|Jan 2027|Feb|Mar|Apr|May|Jun"),
        ("2020-03-05T00:00", "2025-03-05T00:00", "2021|2022|2023|2024|2025"),
    ],
)
def test_dates_are_round(start: str, end: str, texts: str) -> None:
    """Weeks begin on Mondays."""
    low, high = (datetime.fromisoformat(f"{text}+00:00").timestamp() for text in (start, end))
    found = choose_dates(low, high)
    assert "|".join(text for _, text in found) == texts
    assert all(low <= time <= high for time, _ in found)


@pytest.mark.parametrize("span", [30.0, 3600.0, DAY, 20 * DAY, 400 * DAY, 4000 * DAY, 66_000 * DAY])
@pytest.mark.parametrize("start", [1.0, 1.79e9])
def test_there_are_never_many_dates(start: float, span: float) -> None:
    assert len(choose_dates(start, start + span)) <= 12


def test_the_interval_is_wilsons() -> None:
    """Against the roots of (p - k/n)^2 = z^2 p (1 - p) / n."""
    for count, total in ((0, 10), (1, 10), (5, 500), (400, 400), (0, 1), (7, 9)):
        for limit in estimate_interval(count, total):
            if limit not in (0.0, 1.0):
                assert (limit - count / total) ** 2 == pytest.approx(1.959964**2 * limit * (1 - limit) / total)
    assert estimate_interval(0, 10)[0] == 0.0
    assert estimate_interval(10, 10)[1] == 1.0
