"""Schedules as job files write them: what is accepted, Prefect accepts too."""

from __future__ import annotations

import doctest
import random
from datetime import timedelta

import pytest
from prefect.schedules import Schedule

from pipelines.jobfile import recurrence
from pipelines.jobfile.recurrence import interval, is_cron, is_timezone


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("5m", 300), ("6h", 21_600), ("1d", 86_400), (" 2 w ", 1_209_600)]
)
def test_intervals(text: str, seconds: int) -> None:
    assert interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0s", "6", "h", "1.5h", "-1h", "every day", "", "6h 30m", f"{10**30}w"])
def test_what_is_no_interval(text: str) -> None:
    assert interval(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "0 2 * * 0",
        "*/15 * * * *",
        "0,30 8-18/2 1,15 jan-MAR mon-fri",
        "5/10 22-4 * dec-feb sat-1,3",
        "0 0 l * ?",
        "0 0 1,L * *",
        "0 6 * * mon#1,5#5",
        "0 6 ? * L5",
        "@daily",
    ],
)
def test_cron_lines_that_prefect_takes(text: str) -> None:
    assert is_cron(text)
    Schedule(cron=text)


@pytest.mark.parametrize(
    "text",
    [
        "x", "", "* * * *", "60 * * * *", "0 25 * * *", "0 0 32 * *", "0 0 * 13 *", "0 0 * * 8", "0 0 * * noday",
        "*/0 * * * *", "*/x * * * *", "1--2 * * * *", "1-2-3 * * * *", "-1 * * * *", "1, * * * *", "? * * * *",
        "0 0 * * mon#6", "h h * * *", "@reboot",
    ],
)  # fmt: skip
def test_cron_lines_that_prefect_refuses(text: str) -> None:
    assert not is_cron(text)
    with pytest.raises(ValueError, match=r"."):
        Schedule(cron=text)


def test_no_line_is_accepted_that_prefect_refuses() -> None:
    """Lines put together at random from parts that are right, wrong, or right in another field only."""
    draw = random.Random(7)
    parts = ["*", "0", "1", "7", "12", "31", "59", "60", "jan", "dec", "sun", "sat", "l", "l3", "?", "2#2", "mon#5"]
    accepted = 0
    for _ in range(5000):
        fields = ["*"] * 5
        for place in draw.choices(range(5), k=2):
            items = [draw.choice(parts) for _ in range(draw.choice([1, 1, 2]))]
            items = [item + draw.choice(["", "", "", "-" + draw.choice(parts), "/5", "/0"]) for item in items]
            fields[place] = ",".join(items)
        if is_cron(text := " ".join(fields)):
            Schedule(cron=text)
            accepted += 1
    assert accepted > 200


def test_time_zones() -> None:
    assert is_timezone("Europe/Berlin")
    assert not any(map(is_timezone, ("Europe/Atlantis", "../etc", "/etc/localtime", "Europe", "")))


def test_the_examples_in_the_documentation() -> None:
    assert doctest.testmod(recurrence) == (0, 3)
