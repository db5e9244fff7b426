"""Shares as percentages, wherever people read them: halves up, a promise never down. assets/page.js rounds so, too."""

from __future__ import annotations

import math
from collections.abc import Callable


def percent(share: float, digits: int = 2) -> str:
    """A share to the nearest figure of at most `digits` significant digits.

    >>> percent(1 / 133), percent(0.0625), percent(0.984, 3)
    ('0.75 %', '6.3 %', '98.4 %')
    """
    return _percentage(share, digits, half_up)


def promised(rate: float) -> str:
    """A rate that is promised, with three significant digits at most: never one that is lower than the promise.

    >>> promised(0.0625), promised(1 / 19), promised(0.01)
    ('6.25 %', '5.27 %', '1 %')
    """
    return _percentage(rate, 3, math.ceil)


def half_up(value: float) -> int:
    """The nearest whole number, the higher of two: as a browser rounds."""
    return math.floor(value + 0.5)


def _percentage(share: float, digits: int, whole: Callable[[float], int]) -> str:
    value = 100 * share
    if value == 0:
        return "0 %"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    steps = float(f"{value * 10**decimals:.12g}")  # 100 * 0.07 is above 7: what a float adds is no reason to round up
    text = f"{whole(steps) / 10**decimals:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"
