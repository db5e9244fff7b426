"""Percentages: halves go up, a promise never goes down, and a float's own error does not count."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from pipelines.base import percentages


@pytest.mark.parametrize(
    ("rate", "nearest", "promised"),
    [
        (0.0625, "6.3 %", "6.25 %"),
        (0.07, "7 %", "7 %"),  # 100 * 0.07 is above 7
        (1 / 133, "0.75 %", "0.752 %"),
        (7 / 133, "5.3 %", "5.27 %"),
        (0.00125, "0.13 %", "0.125 %"),
        (0.9999, "100 %", "100 %"),
        (0.0, "0 %", "0 %"),
    ],
)
def test_nearest_and_promised(rate: float, nearest: str, promised: str) -> None:
    assert (percentages.percent(rate), percentages.promised(rate)) == (nearest, promised)


def test_no_promise_is_shown_lower_than_it_is() -> None:
    for rate in np.random.default_rng(0).random(2000) ** 4:
        shown = float(percentages.promised(rate).removesuffix(" %"))
        assert 100 * rate * (1 - 1e-11) <= shown <= 100 * rate * 1.01


def test_examples_in_the_documentation() -> None:
    result = doctest.testmod(percentages)
    assert (result.failed, result.attempted) == (0, 2)
