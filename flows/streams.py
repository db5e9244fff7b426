"""Prepare the standard streams: they are always open, tolerate a reader that goes away, and can be JSON."""

from __future__ import annotations

import atexit
import fcntl
import io
import json
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import IO, TextIO

from flows.log_lines import JsonLines
from pipelines.base.progress import as_json

STDERR = 2
RAW = "stderr"  # the logger of lines that no logger wrote
PATIENCE = 2.0  # seconds to wait for the last lines: a child that outlives this process keeps the pipe open
PIPE_BYTES = 1 << 20  # library code may print while it holds Python's lock, and then nobody reads


class Forgiving(io.TextIOWrapper):
    """A text stream whose reader may go away, as in `kintsugi score ... 2>&1 | head -1`: the rest is discarded."""

    @classmethod
    def around(cls, stream: TextIO) -> Forgiving:
        """Take over a stream, which cannot be used any more.

        Args:
            stream: A stream of the interpreter, which loses its buffer.
        """
        encoding, errors, by_line = stream.encoding, stream.errors, bool(stream.line_buffering)
        return cls(stream.detach(), encoding=encoding, errors=errors, line_buffering=by_line)  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write, or discard."""
        with suppress(BrokenPipeError):
            return super().write(text)
        self._forget()
        return len(text)

    def flush(self) -> None:
        """Flush, or discard."""
        try:
            super().flush()
        except BrokenPipeError:
            self._forget()

    def _forget(self) -> None:
        """Send the buffer and all later text to /dev/null."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def prepare_streams() -> None:
    """Open closed streams, tolerate readers that go away, and make stderr JSON if KINTSUGI_LOG asks for it."""
    _open_closed()
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            setattr(sys, name, Forgiving.around(stream))
    if as_json():
        _make_stderr_json()


def _open_closed() -> None:
    """Open a closed stream (`2>&-`) as /dev/null: else the next file takes its number and gets what libraries print."""
    names = ("stdin", "stdout", "stderr")
    while (number := os.open(os.devnull, os.O_RDWR)) < len(names):  # the lowest number that is free
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(names):
        if getattr(sys, name) is None:  # Python's value for a closed stream
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _make_stderr_json() -> None:
    """Make each line on stderr a JSON object: lines of loggers, warnings, C libraries and child processes.

    File descriptor 2 becomes a pipe, so no library takes it for a terminal and draws a progress bar. A thread copies
    the pipe to the real stderr: objects as they are, any other line as the message of an object. Loggers write to the
    real stderr directly, so their lines are out however the process ends.
    """
    real = Forgiving(os.fdopen(os.dup(STDERR), "wb"), encoding="utf-8", line_buffering=True)
    handler = logging.StreamHandler(real)
    handler.setFormatter(JsonLines())
    reader, writer = os.pipe()
    thread = threading.Thread(target=_copy, args=(os.fdopen(reader, "rb"), handler), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no further thread is allowed: the process ends soon, with its own message
        return
    with suppress(OSError, AttributeError):  # a limit of the system, or no Linux
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    sys.stderr.flush()
    os.dup2(writer, STDERR)
    os.close(writer)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    threading.excepthook = lambda error: log_uncaught(error.exc_value)
    atexit.register(_restore, real, thread)  # registered before any library is imported, so it runs last


def _restore(real: TextIO, thread: threading.Thread) -> None:
    """Write what is still in the pipe."""
    sys.stderr.flush()
    os.dup2(real.fileno(), STDERR)
    thread.join(PATIENCE)


def _copy(lines: IO[bytes], handler: logging.StreamHandler[TextIO]) -> None:
    with lines:
        for line in lines:
            text = line.decode(errors="backslashreplace").strip()
            if _is_object(text):  # a child process writes objects itself
                handler.stream.write(f"{text}\n")
            elif text:
                handler.handle(logging.LogRecord(RAW, logging.WARNING, "", 0, "%s", (text,), None))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def log_uncaught(error: BaseException | None) -> None:
    """Log an uncaught error with its stack trace."""
    logging.getLogger("flows").critical("%s", f"{type(error).__name__}: {error}", exc_info=error)
