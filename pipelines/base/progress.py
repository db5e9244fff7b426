"""Progress of long jobs: a bar on a terminal, a plain line every few seconds otherwise."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BETWEEN_LINES = 10.0


def as_json() -> bool:
    """Return whether lines on stderr are for programs: asked of the environment, since other settings may be wrong."""
    return os.environ.get("KINTSUGI_LOG") == "json"


class Advance(Protocol):
    """Called as work gets done."""

    def __call__(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more units; the note (a loss, the stage that limits) is shown behind the numbers."""


@contextmanager
def progress(logger: logging.Logger, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show how far a job is.

    Args:
        logger: Receives the plain lines, so that a flow's own log has them too.
        what: Title, such as "score".
        total: Units in all.
        unit: Such as "images".
        done: Units done before this start (a resumed job).

    Yields:
        The function to call as units get done.
    """
    if _may_draw():
        with _bar(what, total, unit, done) as advance:
            yield advance
    else:
        yield _lines(logger, what, total, unit, done)


def _may_draw() -> bool:
    """Return whether stderr is a terminal, and for people; a program may have been started without one."""
    is_terminal = getattr(sys.stderr, "isatty", lambda: False)()
    return is_terminal and not as_json()


@contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console  # rich takes a tenth of a second to import: only where there is a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} {task.fields[note]}", style="dim"),
        TimeRemainingColumn(),
    )
    start, count = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="", note="")

        def advance(amount: int = 1, note: str = "") -> None:
            nonlocal count
            count += amount
            bar.update(task, advance=amount, rate=_speed(count, time.monotonic() - start, unit), note=note)

        yield advance


def _lines(logger: logging.Logger, what: str, total: int, unit: str, done: int) -> Advance:
    start = last = time.monotonic()
    count = 0

    def advance(amount: int = 1, note: str = "") -> None:
        nonlocal last, count
        count += amount
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES and done + count < total:
            return
        if done + count >= total and now - start < SECONDS_BETWEEN_LINES:
            return  # a job of a moment needs no line
        last = now
        left = (now - start) / count * (total - done - count)
        logger.info(
            "%s: %d of %d %s, %s, %s left%s",
            what,
            done + count,
            total,
            unit,
            _speed(count, now - start, unit),
            f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min",
            f", {note}" if note else "",
        )

    return advance


def _speed(count: int, seconds: float, unit: str) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
