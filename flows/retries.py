"""Decide which failures are tried again: those that may pass with time, never those that the user must fix."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE

from pipelines.errors import KintsugiError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

log = logging.getLogger("pipelines.retries")
# Network folders and devices that are away for a moment. A missing file or a full disk does not pass with time.
TRANSIENT_ERRNO = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
# Base classes by name, so that the check imports nothing: a library that raises one is already imported.
TRANSIENT_NAMES = frozenset(
    {
        "httpx.TransportError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "urllib3.exceptions.TimeoutError",
        "botocore.exceptions.HTTPClientError",
        "websockets.exceptions.ConnectionClosed",  # Prefect's events
    }
)
LOST = "Service exceeded error threshold."  # Prefect's runner, after three connection errors or 5xx in a row
EACH = 10  # one in ten failures of an outage is logged
SERVER_TROUBLE = range(500, 600)  # HTTP status: the request was right, the server was not
DELAYS = [10.0, 60.0, 300.0]  # seconds before each further try


def is_transient(error: BaseException) -> bool:
    """Return whether another try may help: the error, or one of its causes, is about a connection.

    In a group of errors, this must hold for each.

    >>> is_transient(ConnectionResetError()), is_transient(FileNotFoundError()), is_transient(ValueError())
    (True, False, False)
    """
    return any(_is_transient(link) for link in chain(error))


@dataclass(slots=True)
class Outage:
    """Successive failures of a service that is tried until it answers. The first and each tenth are logged.

    Args:
        what: Text for the message: what does not work.
        pause: Seconds until the next try, for the message.
    """

    what: str
    pause: float
    failures: int = 0

    def report(self, error: BaseException) -> None:
        """Count a failure, and log it with its cause if it is the first or a tenth."""
        self.failures += 1
        if self.failures == 1 or self.failures % EACH == 0:
            tries = f", {self.failures} times now" if self.failures > 1 else ""
            log.warning("%s: %s%s; trying again every %g s", self.what, cause(error), tries, self.pause)

    def end(self) -> None:
        """Log that it answers again, if it did not."""
        if self.failures:
            log.info("%s: it answers again, after %d failures", self.what, self.failures)
        self.failures = 0


def cause(error: BaseException) -> str:
    r"""Describe an error on one line: its kind and text; for a group, those of one error.

    >>> cause(ExceptionGroup("some", [ValueError("no\nmore")]))
    'ValueError: no more'
    """
    error = leaf(error)
    text = " ".join(str(error).split())[:400]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def leaf(error: BaseException) -> BaseException:
    """Return the error of a group that matters: the first that another try would not help, else the first."""
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if not is_transient(each)), error.exceptions[0])
    return error


def retry_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task is tried again (the `retry_condition_fn` of our tasks)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


TRIES: dict[str, Any] = {
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_condition_fn": retry_transient,
    "cache_policy": NO_CACHE,  # files and aliases may change under the same name
    "persist_result": False,
}
"""Options of all our tasks."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        # An error of ours was raised on purpose: its explicit cause counts, but not an error that was merely being
        # handled at that moment.
        implicit = None if link.__suppress_context__ or isinstance(link, KintsugiError) else link.__context__
        link = link.__cause__ or implicit


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_transient, error.exceptions))
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if type(error) is RuntimeError and str(error) == LOST:
        return True
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error)
    if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO:
        return True
    if any(f"{base.__module__}.{base.__qualname__}" in TRANSIENT_NAMES for base in type(error).__mro__):
        return True
    return http_status(error) in SERVER_TROUBLE


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of a refused request: libraries keep it in different places."""
    if type(error).__name__ == "RestException":  # MLflow's other errors have 500 if they were given no code
        status = getattr(error, "get_http_status_code", lambda: None)()
    else:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
