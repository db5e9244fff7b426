"""What every command shares: exit codes, plain lines on stderr, errors that the user can mend, Ctrl-C and SIGTERM."""

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
from pipelines.errors import KintsugiError
from pipelines.progress import as_json

DONE, WRONG, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130


class _Plain(logging.Formatter):
    """The message alone, and before a warning the word."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        text = super().format(record)
        return f"warning: {text}" if record.levelno == logging.WARNING else text


@contextmanager
def told_plainly(stopped: str = "start the same command again to go on where it was") -> Iterator[None]:
    """Progress goes to stderr as plain lines; an error that the user can mend is one message and exit code 2.

    Args:
        stopped: What to say after Ctrl-C.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json() else _Plain())
    for name in ("pipelines", "flows"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        if not logger.handlers and not root_speaks_json():
            logger.addHandler(handler)
    try:
        require_memory()
        yield
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise  # a bug, or how typer ends
        _tell_error(explained)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; {stopped}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _explain(error: Exception) -> str | None:
    """What the user can do about an error; None where nobody but us can."""
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
    return f"{place}{_reason(error)}; free space or mend the rights, then start the same command again"


def _tell_error(text: str) -> None:
    """What went wrong, as the last line on stderr."""
    if as_json():
        logging.getLogger("flows").error("%s", text)
    else:
        typer.echo(f"error: {text}", err=True)


def _reason(error: OSError) -> str:
    """What the system says; libraries wrap it in words of their own."""
    return os.strerror(error.errno) if error.errno else str(error)


@contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, which service managers send, keeps what is done as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
