"""Numbers and sentences as people read them. The page's script (assets/page.js) rounds by the same rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NONE = "\N{EN DASH}"  # shown where there is no figure
_NBSP = "\N{NO-BREAK SPACE}"

# Up to a limit in seconds: the unit shown and its seconds, the one below it and its seconds.
_SPANS = (
    (3599.5, "min", 60, "s", 1),
    (86370.0, "h", 3600, "min", 60),
    (math.inf, "d", 86400, "h", 3600),
)


def number(value: float | None, digits: int = 4) -> str:
    """A figure with `digits` significant digits, and a real minus sign.

    >>> number(-0.98765), number(620), number(123456.7), number(None)
    ('−0.9877', '620.0', '123,457', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 10 ** (digits - 1):
        text = f"{size:,.0f}"
    elif size == 0:
        text = "0"
    elif size >= 1e-4:
        text = f"{size:#.{digits}g}".removesuffix(".")
    else:
        text = f"{size:.1e}"
    return f"\N{MINUS SIGN}{text}" if value < 0 else text


def percent(rate: float | None, digits: int = 2) -> str:
    r"""A share as a percentage, with `digits` significant digits at most.

    >>> percent(0.01), percent(1 / 133), percent(0.984, 3), percent(1.0)
    ('1\xa0%', '0.75\xa0%', '98.4\xa0%', '100\xa0%')
    """
    if rate is None or not math.isfinite(rate):
        return NONE
    value = 100 * rate
    if value == 0:
        return f"0{_NBSP}%"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{_NBSP}%"


def duration(seconds: float | None) -> str:
    r"""A time span in its two largest units.

    >>> duration(0.42), duration(75.2), duration(7260)
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


def moment(text: str | None) -> str:
    """An ISO 8601 time in UTC, to the minute; what is not one is shown as it is.

    >>> moment("2026-11-21T05:19:07+01:00")
    '2026-11-21 04:19 UTC'
    """
    if not text:
        return NONE
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M}" if when.tzinfo is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "file"), plural(12000, "file")
    ('1 file', '12,000 files')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def headline(*, ok: int, failed: int, judged: int, flagged: int, rate: float | None) -> str:
    """The verdict of a run in one sentence.

    Args:
        ok: images that were scored.
        failed: files that could not be read.
        judged: images of `ok` that have a verdict.
        flagged: images of `judged` that are abnormal.
        rate: the false-alarm rate that was promised, in 0..1; None where it is not known.
    """
    if not ok:
        return f"No image could be scored: {plural(failed, 'file')} failed"
    if judged:
        who = f"None of {judged:,}" if not flagged else f"{flagged:,} of {judged:,}"
        text = f"{who} images {'look' if flagged != 1 else 'looks'} abnormal"
        if rate is not None:
            text += f" at a promised false-alarm rate of {percent(rate)}"
        if judged < ok:
            text += f"; {plural(ok - judged, 'image')} without a verdict"
    else:
        text = f"{plural(ok, 'image')} scored, without verdicts"
    return f"{text}; {plural(failed, 'file')} failed" if failed else text
