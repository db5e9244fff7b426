"""Shared by all flows: the log, the run's name on changes, and an end no later than that of `kintsugi serve`."""

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
    """Copy the log of the pipelines into the flow run's own log, and record the run's name with its changes."""
    end_with_serve()
    logger = logging.getLogger(LOGGER)
    before = logger.level, logger.propagate, os.environ.get(ACTOR)
    handler: logging.Handler = APILogHandler()
    shown: logging.Handler | None = None
    if as_json() and not logger.handlers:
        shown = logging.StreamHandler()
        shown.setFormatter(JsonLines(str(flow_run.id)))
        logger.addHandler(shown)
    logger.propagate = not logger.handlers  # the command line already shows these lines
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
    """Turn any error into a warning: for steps after the work, whose failure must not fail the run.

    Args:
        what: Text for the warning: what is missing.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of the registry, the orchestrator, the disk: the work is done all the same
        logging.getLogger("pipelines.runs").warning("%s: %s", what, cause(error))


def end_with_serve() -> None:
    """End this run when its `kintsugi serve` is killed: else a second training would start beside this one.

    Ignore Ctrl-C, which the terminal sends to both processes: `serve` handles it.
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
    # At once: the server is gone too and needs no notice, and the files on disk are complete at any moment.
    os._exit(1)


class _Plainly(logging.Filter):
    """Log an error that the user can fix as its message alone; a stack trace would hide it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, KintsugiError):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_Plainly())
