from __future__ import annotations

import doctest
import math
from types import ModuleType

import pytest

from pipelines.report import histogram, page, sentences, words

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.98765, "0.9877"),
        (1.0, "1.000"),
        (999.96, "1000"),
        (0.06250625, "0.06251"),
        (0.03125, "0.03125"),
        (1234.5, "1,235"),
        (-69798.4, "−69,798"),
        (0.00004567, "4.6e-5"),
        (math.nan, "–"),
        (math.inf, "–"),
        (None, "–"),
    ],
)
def test_numbers_have_four_significant_digits(value: float | None, text: str) -> None:
    assert words.format_number(value) == text


def test_rates_are_percentages_and_a_promise_is_not_rounded_down() -> None:
    assert (words.format_percent(7 / 133), words.format_promise(7 / 133)) == (f"5.3{NBSP}%", f"5.27{NBSP}%")
    assert {words.format_percent(None), words.format_promise(math.nan)} == {"–"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.042 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (75.2, "1 min 15 s"),
        (3599.8, "1 h 0 min"),
        (7260, "2 h 1 min"),
        (86399, "1 d 0 h"),
        (200_000, "2 d 8 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert words.format_duration(seconds).replace(NBSP, " ") == text


def test_times_are_in_utc_and_odd_ones_are_left_alone() -> None:
    assert words.format_moment("2026-11-21T01:30:00+02:00") == "2026-11-20 23:30 UTC"
    assert words.format_moment("2026-11-21T01:30:00Z") == "2026-11-21 01:30 UTC"
    assert words.format_moment("yesterday") == "yesterday"


@pytest.mark.parametrize("module", [words, histogram, page, sentences], ids=lambda module: module.__name__)
def test_examples_in_the_documentation(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
