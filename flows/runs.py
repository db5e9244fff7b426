"""What every flow of ours does around its work: logs, names, and an end that is not later than its parent's."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run

from flows.log_lines import JsonLines
from flows.retries import cause
from pipelines.base.progress import as_json
from pipelines.errors import KintsugiError

SERVE_PID = "KINTSUGI_SERVE_PID"  # set by `kintsugi serve` for the runs that it starts
ACTOR = "KINTSUGI_ACTOR"  # read by the registry's trail
LOGGER = "pipelines"


@contextmanager
def recorded_run() -> Iterator[None]:
    """Record what the pipelines log in the flow run's own log, and sign what the run changes with its name."""
    end_with_serve()
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate, os.environ.get(ACTOR)
    handler: logging.Handler = APILogHandler()
    shown: logging.Handler | None = None
    if as_json() and not logger.handlers:
        shown = logging.StreamHandler()
        shown.setFormatter(JsonLines(str(flow_run.id)))
        logger.addHandler(shown)
    logger.propagate = not logger.handlers  # the command line shows these lines already: not twice
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    os.environ.setdefault(ACTOR, f"flow run {flow_run.name}")
    try:
        yield
    finally:
        logger.removeHandler(handler)
        if shown is not None:
            logger.removeHandler(shown)
        logger.level, logger.propagate = before[:2]
        if before[2] is None:
            os.environ.pop(ACTOR, None)


@contextmanager
def only_warned(what: str) -> Iterator[None]:
    """Make whatever goes wrong a warning: for what follows work that is done, which it would report as failed.

    Args:
        what: What is missing then.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of the registry, the orchestrator, the disk: the work is done all the same
        logging.getLogger("pipelines.runs").warning("%s: %s", what, cause(error))


def end_with_serve() -> None:
    """Under `kintsugi serve`: end when it is killed, or a second training would start beside this one.

    It is also left to `serve` to answer Ctrl-C, which the terminal sends to both.
    """
    parent = os.environ.get(SERVE_PID)
    if parent is None or int(parent) == os.getpid():
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    # At once, since the server is gone too and cannot be told: what is on disk is whole at any moment.
    os._exit(1)


class _Plainly(logging.Filter):
    """An error that the user can mend is its message; a stack trace would hide it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, KintsugiError):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_Plainly())
