"""What every command shares: exit codes, plain lines on stderr, errors that the user can mend, Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from flows.log_lines import JsonLines, as_json
from pipelines.errors import KintsugiError

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
        if not logger.handlers:
            logger.addHandler(handler)
    try:
        yield
    except KintsugiError as error:
        _tell_error(str(error))
        raise typer.Exit(WRONG) from None
    except ModuleNotFoundError as error:
        from flows.preflight import missing_package

        explained = missing_package(error)
        if explained is None:
            raise  # one of our own modules: a bug, not a choice of what to install
        _tell_error(str(explained))
        raise typer.Exit(WRONG) from None
    except BrokenPipeError:
        raise  # whoever read our output has gone, as in `kintsugi models | head`: typer ends quietly
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        _tell_error(f"{place}{_reason(error)}; free space or mend the rights, then start the same command again")
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; {stopped}", err=True)
        raise typer.Exit(INTERRUPTED) from None


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
