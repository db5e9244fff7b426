"""Times of schedules: check intervals and cron lines when the job file is read, without Prefect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

FORMS = 'write a cron line such as "0 2 * * 0", or an interval such as "6h" (s, m, h, d, w)'
INTERVAL = re.compile(r"(?P<number>[1-9]\d*)\s*(?P<unit>[smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
ALIASES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})


@dataclass(frozen=True, slots=True)
class _Field:
    """The values that one field of a cron line may have."""

    least: int
    most: int
    names: tuple[str, ...] = ()  # names of the numbers
    special: str = r"(?!)"  # pattern of other values of the whole field

    def admits(self, text: str) -> bool:
        return re.fullmatch(self.special, text) is not None or all(map(self._admits_item, text.split(",")))

    def _admits_item(self, text: str) -> bool:
        places, slash, step = text.partition("/")
        if slash and not (step.isdecimal() and step.isascii() and int(step)):
            return False
        ends = places.split("-")
        return places == "*" or (len(ends) < 3 and all(map(self._admits_value, ends)))

    def _admits_value(self, text: str) -> bool:
        return text in self.names or (text.isdecimal() and text.isascii() and self.least <= int(text) <= self.most)


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DATE = r"([1-9]|[12][0-9]|3[01])"
_NTH = rf"(([0-7]|{'|'.join(_DAYS)})#[1-5]|l[0-7])"  # mon#2: the second Monday; l5: the last Friday
_CRON = (
    _Field(0, 59),  # minute
    _Field(0, 23),  # hour
    _Field(1, 31, special=rf"\?|({_DATE},)*l(,{_DATE})*"),  # day of the month; l: the last
    _Field(1, 12, _MONTHS),
    _Field(0, 7, _DAYS, rf"\?|{_NTH}(,{_NTH})*"),  # day of the week
)


def interval(text: str) -> timedelta | None:
    """Return the time between two runs; None if the text is not an interval.

    >>> interval("6h")
    datetime.timedelta(seconds=21600)
    """
    match = INTERVAL.fullmatch(text.strip())
    try:
        return timedelta(seconds=int(match["number"]) * SECONDS[match["unit"]]) if match else None
    except OverflowError:  # millions of years
        return None


def is_cron(text: str) -> bool:
    """Return whether the text is a cron line of five fields, or a word such as @daily; Prefect accepts both.

    >>> is_cron("*/15 8-18 * * mon-fri"), is_cron("0 25 * * *")
    (True, False)
    """
    fields = text.lower().split()
    if len(fields) != len(_CRON):
        return text.lower() in ALIASES
    return all(field.admits(part) for field, part in zip(_CRON, fields, strict=True))


def is_timezone(name: str) -> bool:
    """Return whether the name is a time zone; always true on a machine without a list of them."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a plain name, a folder
        return not available_timezones()  # a bare container has no list of them
    return True


OWN = re.compile(r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)-(?P<what>.+)")  # folders that a schedule names


def schedule_of(run: Path) -> tuple[Path, str] | None:
    """Return the parent and the common name of the folders of a schedule's runs; None for other folders.

    >>> schedule_of(Path("/reports/2026-11-21T06-00-00Z-score-inbox"))
    (PosixPath('/reports'), 'score-inbox')
    """
    own = OWN.fullmatch(run.name)
    return (run.parent, own["what"]) if own else None
