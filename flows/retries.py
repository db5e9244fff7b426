"""Which failures are worth another try: those that time may mend, never those that the user has to."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect.cache_policies import NO_CACHE

from pipelines.errors import KintsugiError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

# Network folders and devices that are away for a moment. A missing file or a full disk does not mend itself.
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
# Base classes by name, so that nothing is imported for the question: libraries that raise them are imported already.
TRANSIENT_NAMES = frozenset(
    {
        "httpx.TransportError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "urllib3.exceptions.TimeoutError",
        "botocore.exceptions.HTTPClientError",
    }
)
SERVER_TROUBLE = range(500, 600)  # HTTP status: the request was right, the server was not
DELAYS = [10.0, 60.0, 300.0]  # seconds before each further try


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help: the error, or one that it was raised from, is about a connection.

    >>> is_transient(ConnectionResetError()), is_transient(FileNotFoundError()), is_transient(ValueError())
    (True, False, False)
    """
    return any(_is_transient(link) for link in _chain(error))


def retry_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """The `retry_condition_fn` of our tasks."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


TRIES: dict[str, Any] = {
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_condition_fn": retry_transient,
    "cache_policy": NO_CACHE,  # behind the same names files and aliases change
    "persist_result": False,
}
"""Of all our tasks."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        # An error of ours says that somebody looked at what happened: what it was raised from counts, but not what
        # happened to be on its way.
        implicit = None if link.__suppress_context__ or isinstance(link, KintsugiError) else link.__context__
        link = link.__cause__ or implicit


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error)
    if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO:
        return True
    if any(f"{base.__module__}.{base.__qualname__}" in TRANSIENT_NAMES for base in type(error).__mro__):
        return True
    return _http_status(error) in SERVER_TROUBLE


def _http_status(error: BaseException) -> int | None:
    """The status that a server refused a request with: MLflow, httpx and requests keep it in different places."""
    if type(error).__name__ == "RestException":  # MLflow's other errors say 500 when they were given no code
        status = getattr(error, "get_http_status_code", lambda: None)()
    else:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
