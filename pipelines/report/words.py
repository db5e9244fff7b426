"""Format numbers, shares and times for people. The page's script (assets/page.js) rounds by the same rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context

from pipelines.base import percentages
from pipelines.base.safe_text import plural as plural  # pages write it as a word, too

NONE = "\N{EN DASH}"  # shown if there is no figure
_NBSP = "\N{NO-BREAK SPACE}"

# Up to a limit in seconds: the unit shown and its seconds, the one below it and its seconds.
_SPANS = (
    (3599.5, "min", 60, "s", 1),
    (86370.0, "h", 3600, "min", 60),
    (math.inf, "d", 86400, "h", 3600),
)


def format_number(value: float | None, digits: int = 4) -> str:
    """Return a figure with `digits` significant digits, halves up, and a real minus sign.

    >>> format_number(-0.98765), format_number(620), format_number(123456.7), format_number(None)
    ('−0.9877', '620.0', '123,457', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 10 ** (digits - 1):
        text = f"{percentages.half_up(size):,}"
    elif size == 0:
        text = "0"
    elif size >= 1e-4:
        nearest = Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(size)
        text = f"{float(nearest):#.{digits}g}".removesuffix(".")
    else:
        mantissa, _, exponent = f"{size:.1e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return f"\N{MINUS SIGN}{text}" if value < 0 else text


def format_percent(rate: float | None, digits: int = 2) -> str:
    r"""Return a share as a percentage, with `digits` significant digits at most.

    >>> format_percent(0.01), format_percent(None)
    ('1\xa0%', '–')
    """
    return NONE if rate is None or not math.isfinite(rate) else percentages.percent(rate, digits).replace(" ", _NBSP)


def format_promise(rate: float | None) -> str:
    r"""Return a rate that is promised, never rounded down.

    >>> format_promise(0.0625), format_promise(None)
    ('6.25\xa0%', '–')
    """
    return NONE if rate is None or not math.isfinite(rate) else percentages.promised(rate).replace(" ", _NBSP)


def format_duration(seconds: float | None) -> str:
    r"""Return a time span in its two largest units.

    >>> format_duration(0.42), format_duration(75.2), format_duration(7260)
    ('0.42\xa0s', '1\xa0min 15\xa0s', '2\xa0h 1\xa0min')
    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.2g}{_NBSP}s"
    if round(seconds) < 60:
        return f"{seconds:.0f}{_NBSP}s"
    _, unit, size, smaller, part = next(span for span in _SPANS if seconds < span[0])
    whole, rest = divmod(round(seconds / part), size // part)
    return f"{whole}{_NBSP}{unit} {rest}{_NBSP}{smaller}"


def format_moment(text: str | None) -> str:
    """Return an ISO 8601 time in UTC, to the minute; any other text is returned unchanged.

    >>> format_moment("2026-11-21T05:19:07+01:00")
    '2026-11-21 04:19 UTC'
    """
    if not text:
        return NONE
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M}" if when.tzinfo is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def round_count(count: float) -> str:
    """Return a count to two digits, as in "1 in 2,300".

    >>> round_count(2347.1), round_count(6145), round_count(1.2)
    ('2,300', '6,100', '1')
    """
    whole = round(count)
    return f"{round(whole, 2 - len(str(whole))):,}"
