"""Warnings of a job, kept for those who read its result later: lines on a terminal are gone by then."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_kept: ContextVar[list[str] | None] = ContextVar("kept warnings", default=None)


class _Keeper(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning, once."""
        text, kept = record.getMessage(), _kept.get()
        if kept is not None and text not in kept:
            kept.append(text)


@contextmanager
def keep_warnings() -> Iterator[None]:
    """Keep what the software warns of meanwhile, for `kept_warnings`."""
    handler, logger, token = _Keeper(logging.WARNING), logging.getLogger("pipelines"), _kept.set([])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        _kept.reset(token)


def kept_warnings() -> tuple[str, ...]:
    """Return the warnings since `keep_warnings` began; none outside of it."""
    return tuple(_kept.get() or ())
