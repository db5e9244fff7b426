"""Numbers and sentences as people read them. The page's script (assets/page.js) rounds by the same rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context

from pipelines.base import percentages
from pipelines.base.safe_text import plural as plural  # pages write it as a word, too
from pipelines.base.safe_text import printable

NONE = "\N{EN DASH}"  # shown where there is no figure
_NBSP = "\N{NO-BREAK SPACE}"

# Up to a limit in seconds: the unit shown and its seconds, the one below it and its seconds.
_SPANS = (
    (3599.5, "min", 60, "s", 1),
    (86370.0, "h", 3600, "min", 60),
    (math.inf, "d", 86400, "h", 3600),
)


def number(value: float | None, digits: int = 4) -> str:
    """A figure with `digits` significant digits, halves up, and a real minus sign.

    >>> number(-0.98765), number(620), number(123456.7), number(None)
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


def percent(rate: float | None, digits: int = 2) -> str:
    r"""A share as a percentage, with `digits` significant digits at most.

    >>> percent(0.01), percent(None)
    ('1\xa0%', '–')
    """
    return NONE if rate is None or not math.isfinite(rate) else percentages.percent(rate, digits).replace(" ", _NBSP)


def promised(rate: float | None) -> str:
    r"""A rate that is promised, never rounded down.

    >>> promised(0.0625), promised(None)
    ('6.25\xa0%', '–')
    """
    return NONE if rate is None or not math.isfinite(rate) else percentages.promised(rate).replace(" ", _NBSP)


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


def headline(
    *,
    ok: int,
    failed: int,
    judged: int,
    flagged: int,
    rate: float | None,
    rule: str | None = None,
    unpromised: int = 0,
) -> str:
    """The verdict of a run in one sentence.

    Args:
        ok: images that were scored.
        failed: files that could not be read.
        judged: images of `ok` that have a verdict.
        flagged: images of `judged` that are abnormal.
        rate: the false-alarm rate that was promised, in 0..1; None where it is not known.
        rule: what took its place, in words, as a budget or a share of false discoveries.
        unpromised: images of `judged` for which no rate is promised.
    """
    if not ok:
        return f"No image could be scored: {plural(failed, 'file')} failed"
    if judged:
        who = f"None of {judged:,}" if not flagged else f"{flagged:,} of {judged:,}"
        text = f"{who} images {'look' if flagged != 1 else 'looks'} abnormal"
        if rule is not None:
            text += f": {rule}"
        elif rate is not None and unpromised < judged:
            text += f" at a promised false-alarm rate of {promised(rate)}"
        if unpromised:
            text += f"; none is promised for {unpromised:,} of them" if unpromised < judged else ", without a promise"
        if judged < ok:
            text += f"; {plural(ok - judged, 'image')} without a verdict"
    else:
        text = f"{plural(ok, 'image')} scored, without verdicts"
    return f"{text}; {plural(failed, 'file')} failed" if failed else text


def rounded(count: float) -> str:
    """A count to two digits, as in "1 in 2,300".

    >>> rounded(2347.1), rounded(6145), rounded(1.2)
    ('2,300', '6,100', '1')
    """
    whole = round(count)
    return f"{round(whole, 2 - len(str(whole))):,}"


def nearest_class(name: str, probability: float) -> str:
    """The class that an image is most like.

    >>> nearest_class("shirt", 0.8731)
    'nearest class: shirt (probability 0.87 among the classes)'
    """
    return f"nearest class: {printable(name)} (probability {probability:.2f} among the classes)"


def regions(
    number: int,
    *,
    percent: float | None,
    size: tuple[int | None, int | None],
    centre: tuple[float | None, float | None],
) -> str:
    r"""The abnormal regions of an image in one sentence; sizes and places are in pixels of the image.

    >>> regions(2, percent=3.41, size=(61, 40), centre=(150.2, 64.9))
    '2 abnormal regions cover 3.4\xa0% of the image; the largest is 61 × 40 pixels around x\xa0150,\xa0y\xa065.'
    """
    if not number or percent is None or None in (*size, *centre):
        return "No single region stands out: what is unusual is spread over the image, or in specks."
    covered = (
        f"{plural(number, 'abnormal region')} {'covers' if number == 1 else 'cover'} {_share(percent)} of the image"
    )
    which = "it" if number == 1 else "the largest"
    x, y = (f"{value or 0:.0f}" for value in centre)
    return f"{covered}; {which} is {size[0]} × {size[1]} pixels around x{_NBSP}{x},{_NBSP}y{_NBSP}{y}."


def worst_place(share: float, *, places: int, beyond: bool) -> str:
    """How unusual the most unusual place of an image is.

    >>> worst_place(0.0004, places=6144, beyond=False)
    'At its worst place: as unusual as one place in 2,500 of good images.'
    """
    if beyond:
        return f"At its worst place: more unusual than every one of the {places:,} places of good images."
    return f"At its worst place: as unusual as one place in {rounded(1 / share)} of good images."


def colours(level: float, places: int | None, smallest: float | None, speck_percent: float) -> list[str]:
    """What the colours and the outlines of heat maps mean, in sentences.

    Args:
        level: Share of good images' places below which a region is outlined.
        places: Places of good images that stand behind the colours; None: they are told by four quantiles alone.
        smallest: The smallest share that they can tell.
        speck_percent: Regions smaller than this, in % of the image, are left out.
    """
    reach = smallest or 1e-3
    steps = [("gold where one place in 1,000 of good images is as unusual", 1e-3), ("red where one in 10,000 is", 1e-4)]
    meant = [text for text, share in steps if share >= reach]
    if places:
        darkest = "deep red" if reach <= 1e-4 else "red"
        ending = "is" if meant else "is as unusual"
        meant.append(f"{darkest} where none of the {places:,} places of the calibration images {ending}")
    else:
        meant.append("red far beyond that")
    outlined = (
        f"White outlines enclose what is as unusual as at most one place in {rounded(1 / level)} of good images; "
        f"specks below {_share(speck_percent)} of the image are left out."
    )
    return [f"{', '.join(meant).capitalize()}.", outlined]


def _share(percent_value: float) -> str:
    return percent(percent_value / 100)
