"""Shared by all commands: exit codes, plain lines on stderr, errors that the user can fix, Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from flows.log_lines import JsonLines, root_speaks_json
from flows.shortage import require_memory, shortage_of
from pipelines.base.progress import as_json
from pipelines.errors import KintsugiError

DONE, FAULT, WRONG, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class _Plain(logging.Formatter):
    """The message alone, on one line; a warning begins with the word "warning"."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        text = super().format(record)
        return f"warning: {text}" if record.levelno == logging.WARNING else text


class _Once(logging.Filter):
    """Pass each warning once: a command that scores a folder twice would print its warnings twice."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._passed: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is no warning, or a new one."""
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        new = text not in self._passed
        self._passed.add(text)
        return new


@contextmanager
def _lines_on_stderr(*, repeats: bool) -> Iterator[None]:
    """Print the log of the software on stderr, each line once: Prefect's root handler would print it again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json() else _Plain())
    if not repeats:
        handler.addFilter(_Once())
    loggers = [logging.getLogger(name) for name in ("pipelines", "flows")]
    before = [logger.propagate for logger in loggers]
    elsewhere = root_speaks_json()
    for logger in loggers:
        logger.setLevel(logging.INFO)
        if not elsewhere:
            logger.addHandler(handler)
            logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


@contextmanager
def told_plainly(stopped: str = "start the same command again to continue", *, repeats: bool = False) -> Iterator[None]:
    """Print progress on stderr as plain lines; turn an error that the user can fix into one message and exit code 2.

    Args:
        stopped: The text after Ctrl-C.
        repeats: Print a warning every time, not only the first time: for commands that run for days.
    """
    with _lines_on_stderr(repeats=repeats):
        yield from _with_plain_errors(stopped)


def _with_plain_errors(stopped: str) -> Iterator[None]:
    try:
        require_memory()
        yield
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise  # a bug, or how typer ends
        tell_end(explained, word="error: ")
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        tell_end(f"stopped; {stopped}", level=logging.WARNING)
        raise typer.Exit(INTERRUPTED) from None


def _explain(error: Exception) -> str | None:
    """Return what the user can do about an error; None for a bug."""
    if isinstance(error, KintsugiError):
        return str(error)
    if isinstance(error, MemoryError | RuntimeError | ImportError | OSError) and (short := shortage_of(error)):
        return short
    if isinstance(error, ModuleNotFoundError):
        from flows.preflight import missing_package

        missing = missing_package(error)
        return None if missing is None else str(missing)
    if isinstance(error, BrokenPipeError) or not isinstance(error, OSError):
        return None
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{_reason(error)}; free space or correct the permissions, then start the same command again"


def tell_end(text: str, *, word: str = "", level: int = logging.ERROR) -> None:
    """Write the reason why a command did not finish its work, as the last line on stderr.

    Args:
        text: The reason.
        word: Text before the reason, in lines for people.
        level: Level of the JSON object, in lines for programs.
    """
    if as_json():
        logging.getLogger("flows").log(level, "%s", text)
    else:
        typer.echo(f"{word}{text}", err=True)


def _reason(error: OSError) -> str:
    """Return the system's own message: libraries wrap it in other words."""
    return os.strerror(error.errno) if error.errno else str(error)


@contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM, which service managers send, like Ctrl-C: finished work is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
