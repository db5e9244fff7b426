"""How the last run compares with those before it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.report.comparison import compare_runs, find_tail_probability
from pipelines.report.past_runs import PastRun

SHIFTED = {"p_value": 1e-12, "drifted": True, "moved": "brightness", "effect": 0.02}
ALIKE = {"p_value": 0.6, "drifted": False, "moved": "score", "effect": 0.52}


def past(day: int, flagged: int = 5, ok: int = 500, **changes: Any) -> PastRun:
    facts = {"folder": f"r{day}", "model": "tiles", "version": "3", "when": 86_400.0 * day, "ok": ok, "failed": 0}
    return PastRun.model_validate(facts | {"flagged": flagged, "promised": 0.01} | changes)


@pytest.mark.parametrize(
    ("last", "text"),
    [
        ({}, "5 of 500 images flagged, 1 %, as usual (1 %); every file could be read"),
        ({"flagged": 30}, "30 of 500 images flagged, 6 %, more than usual (1 %); every"),
        ({"flagged": 1, "ok": 10}, "1 of 10 images flagged, 10 %, as usual (1 %)"),  # by chance in 10 % of such runs
        ({"flagged": 0, "ok": 5000}, "0 of 5,000 images flagged, 0 %, fewer than usual (1 %)"),
        ({"drift": SHIFTED}, "as usual (1 %); drift is reported: brightness lower; every"),
        ({"drift": ALIKE}, "as usual (1 %); no drift; every"),
        ({"failed": 500}, "500 files failed, 50 % (usually 0 %)"),
        ({"flagged": None}, "Last run: 500 images; every file could be read"),
        ({"flagged": 0, "ok": 0, "failed": 3}, "Last run: 0 images; 3 files failed, 100 % (usually 0 %)"),
    ],
)
def test_the_last_run_is_compared_with_those_before(last: dict[str, Any], text: str) -> None:
    runs = [past(day) for day in range(9)]
    assert text in compare_runs([*runs, past(10, **last)]).replace("\N{NO-BREAK SPACE}", " ")


def test_as_many_as_were_promised_are_no_news() -> None:
    runs = [past(day, flagged=0) for day in range(9)]
    assert "as usual" in compare_runs([*runs, past(10, flagged=9)])
    assert "more than usual" in compare_runs([*runs, past(10, flagged=20)])
    assert compare_runs([past(1)]).startswith(
        "The only run so far: 5 of 500 images flagged, 1\N{NO-BREAK SPACE}%; every"
    )


def test_the_tail_is_the_binomial_one() -> None:
    from scipy.special import betainc

    for count, total, share in ((3, 100, 0.01), (60, 5000, 0.01), (999, 1000, 0.9), (5, 5, 0.2), (2, 10**6, 1e-9)):
        assert find_tail_probability(count, total, share) == pytest.approx(
            betainc(count, total - count + 1, share), rel=1e-6
        )
