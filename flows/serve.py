"""`kintsugi serve`: run the schedules of job files on this machine, each run in its own process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType
from rich.console import Console

from flows.faults import expect_deployment, is_refusal, reason_of
from flows.inbox import attend
from flows.notify import notify
from flows.preflight import TO_TRAIN, require
from flows.restore import restore_flow
from flows.retries import Outage, cause, is_transient
from flows.runs import SERVE_PID
from flows.schedules import Planned, find_jobs, plan
from flows.score import score_flow
from flows.server import CONSOLE_LEVEL, ServerError, orchestrator
from flows.stale import close_runs_of, drop_missed_runs
from flows.train import train_flow
from pipelines.batch.deliveries import Inbox
from pipelines.jobfile.job import load_job
from pipelines.jobfile.recurrence import interval
from pipelines.settings import settings

__all__ = ["find_jobs", "serve"]

# Not through logging: Prefect's handlers would print each line again. Wrapped lines would break the table.
CONSOLE = Console(soft_wrap=True, highlight=False, markup=False)
FLOWS: Mapping[str, Flow[..., Any]] = {"train": train_flow, "score": score_flow, "restore": restore_flow}
OVERLAP = {"queue": ConcurrencyLimitStrategy.ENQUEUE, "skip": ConcurrencyLimitStrategy.CANCEL_NEW}
MACHINE = f"machine:{socket.gethostname()}"  # tag of the runs that this machine starts
POLL_SECONDS = (1.0, 10.0)  # least and most between two looks for due runs
PLAN_SECONDS = 15.0  # how long to wait for the server's scheduler before the table is shown without times
AWAY_SECONDS = 30.0  # before the next look at a server that did not answer

log = logging.getLogger("pipelines.serve")


def serve(jobs: Sequence[Path]) -> None:
    """Run the schedules of job files until Ctrl-C or SIGTERM; then stop the runs, and an embedded server.

    Args:
        jobs: Job files; those without a `[schedule]` are skipped.

    Raises:
        JobError: A job file cannot be read, or no job has a schedule that can run.
        ServerError: Prefect's server does not answer or refuses; or another process serves one of the jobs on this
            machine; or, at the end, some schedules were stopped by an error that another try would not help.
    """
    planned = plan([load_job(path) for path in jobs])
    if any(each.verb == "train" for each in planned):
        require(*TO_TRAIN)
    with ExitStack() as held:
        for name in sorted({each.job.name for each in planned}):
            held.enter_context(_only_one(name))
        # For the runs: they log to this terminal, and end when this process ends.
        held.enter_context(_variables({CONSOLE_LEVEL: "INFO", SERVE_PID: str(os.getpid())}))
        stop, reached = held.enter_context(_stop_by_signal()), threading.Event()
        inboxes = {each.name: _inbox(each) for each in planned if each.schedule is None}
        stopped: dict[str, str] = {}  # runs that are served no more, and why
        outage = Outage("Prefect's server does not answer", AWAY_SECONDS)
        while not stop.is_set() and (left := [each for each in planned if each.name not in stopped]):
            with orchestrator() as url:
                try:
                    asyncio.run(_serve(left, inboxes, stop, reached, stopped, outage))
                except Exception as error:
                    if not is_transient(error):
                        if not is_refusal(error):
                            raise  # a bug: its trace says where
                        raise ServerError(f"Prefect's server at {url} refuses: {reason_of(error)}") from error
                    if not reached.is_set():
                        check = "check PREFECT_API_URL and PREFECT_API_AUTH_STRING"
                        msg = f"Prefect's server at {url} does not answer ({cause(error)}): {check}"
                        raise ServerError(msg) from error
                    if not stop.is_set():
                        outage.report(error)
            if outage.failures:
                stop.wait(AWAY_SECONDS)
        if stopped:
            msg = "; ".join(f"{name} was stopped: {reason}" for name, reason in stopped.items())
            raise ServerError(f"{msg}. Correct the cause and start `kintsugi serve` again")


async def _serve(
    planned: Sequence[Planned],
    inboxes: Mapping[str, Inbox],
    stop: threading.Event,
    reached: threading.Event,
    stopped: dict[str, str],
    outage: Outage,
) -> None:
    """Serve until a stop is requested or nothing is left to serve; an error of one job stops only that job."""
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # it would log each run that is skipped or queued
    runner = _Runner(planned, stop)
    ids: dict[UUID, Planned] = {}
    for each in planned:
        try:
            ids[await runner.aadd_deployment(await _deployment(each))] = each
        except Exception as error:
            if is_transient(error):
                raise
            await _stop_serving(each, error, stopped)
    if not ids:
        return
    reason = "The process that served this run was killed."
    if closed := await asyncio.to_thread(close_runs_of, list(ids), MACHINE, reason):
        await asyncio.to_thread(notify, f"Kintsugi: {closed} runs on {socket.gethostname()} were cut off", [reason])
    await asyncio.to_thread(drop_missed_runs, list(ids))
    waiting = {identity: each for identity, each in ids.items() if each.name in inboxes}
    await asyncio.to_thread(drop_missed_runs, list(waiting), asked=True)  # `attend` asks anew
    reached.set()
    outage.end()
    running = asyncio.create_task(runner.start())
    showing = asyncio.create_task(_show(ids))
    works = {
        asyncio.create_task(attend(identity, each, inboxes[each.name])): each for identity, each in waiting.items()
    }
    works |= {asyncio.create_task(expect_deployment(identity)): each for identity, each in ids.items()}
    while not (stop.is_set() or running.done() or all(each.name in stopped for each in ids.values())):
        for task in [task for task in works if task.done()]:  # neither ends but by an error
            each = works.pop(task)
            fault = None if task.cancelled() else task.exception()
            if fault is not None and each.name not in stopped:
                await _stop_serving(each, fault, stopped)
        for task, each in works.items():
            if each.name in stopped:
                task.cancel()
        await asyncio.sleep(0.1)
    for task in (showing, *works):
        task.cancel()
    if not running.done():
        CONSOLE.print("stopping")
        if runner.started:
            await runner.astop()
        else:  # it has nothing to end yet
            running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _stop_serving(planned: Planned, error: BaseException, stopped: dict[str, str]) -> None:
    """Record and report that a schedule has stopped; the others continue."""
    reason = stopped[planned.name] = reason_of(error)
    log.error("%s has stopped: %s", planned.name, reason, exc_info=None if is_refusal(error) else error)
    await asyncio.to_thread(notify, f"Kintsugi: {planned.name} has stopped", [reason])


class _Runner(Runner):
    """Prefect's runner: it looks for due runs, and starts each in a process."""

    def __init__(self, planned: Sequence[Planned], stop: threading.Event) -> None:
        every = [each.schedule.interval if each.schedule else interval(each.text) for each in planned]
        intervals = [each.total_seconds() for each in every if each]
        least, most = POLL_SECONDS
        super().__init__(
            name="kintsugi",
            query_seconds=min(most, max(least, min(intervals, default=most) / 5)),
            # Not before a run is due: a run that waits in its own process holds its deployment's only place, and the
            # run in progress would count as an overlap.
            prefetch_seconds=0,
            limit=None,  # the limits of the deployments decide about a run that finds no place
        )
        self._stop_requested = stop

    async def _pause_schedules(self) -> None:
        """Pause all schedules. Prefect's own method would stop at the first deployment that was deleted."""
        for deployment in self._deployment_registry.get_deployment_ids():
            with suppress(ObjectNotFound):
                await self._client.pause_deployment(deployment)

    def handle_sigterm(self, *_args: object, **_keywords: object) -> None:
        """Request a stop. Prefect would stop inside the signal handler, against its own event loop."""
        self._stop_requested.set()


async def _deployment(planned: Planned) -> RunnerDeployment:
    collision = OVERLAP["queue" if planned.verb == "arrivals" else planned.job.schedule.overlap]
    deployment: RunnerDeployment = await FLOWS[planned.flow].ato_deployment(
        name=planned.name,
        schedule=planned.schedule,
        parameters=planned.parameters,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=collision),
        tags=["kintsugi", MACHINE],
        description=f"From {planned.job.path}",
        entrypoint_type=EntrypointType.MODULE_PATH,  # the runs import the installed package, wherever they start
    )
    return deployment


async def _show(planned: Mapping[UUID, Planned]) -> None:
    """Print the schedules, with the times that the server has planned."""
    timed = {identity for identity, each in planned.items() if each.schedule}
    try:
        due = await _due(timed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the runs start without the table's times
        log.warning("the times of the next runs cannot be shown: %s", cause(error))
        due = {}
    if len(due) < len(timed):
        CONSOLE.print(f"The server has planned no runs within {PLAN_SECONDS:.0f} s: see its log if no run starts.")
    rows = [("run", "when", "while one runs", "next", "what")]
    for identity, each in planned.items():
        table = each.job.schedule
        when = f"{due[identity].astimezone():%Y-%m-%d %H:%M:%S %Z}" if identity in due else "-"
        what = each.job.path if each.verb == "train" else table.folder
        if each.schedule:
            rows.append((each.name, f"{each.text} {table.timezone}", table.overlap, when, str(what)))
        else:
            rows.append((each.name, f"{each.text} after the last change", "queue", "-", f"what arrives in {what}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        CONSOLE.print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    CONSOLE.print("Stop with Ctrl-C.")


async def _due(timed: Collection[UUID]) -> dict[UUID, datetime]:
    """Return the next run's time of each deployment that the server has planned within the waiting time."""
    due: dict[UUID, datetime] = {}
    async with get_client() as client:
        ends = asyncio.get_running_loop().time() + PLAN_SECONDS
        while len(due) < len(timed) and asyncio.get_running_loop().time() < ends:
            for identity in set(timed) - due.keys():
                runs = await client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(
                        deployment_id=FlowRunFilterDeploymentId(any_=[identity]),
                        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                    ),
                    sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
                    limit=1,
                )
                if runs and runs[0].next_scheduled_start_time:
                    due[identity] = runs[0].next_scheduled_start_time
            await asyncio.sleep(0.5)
    return due


def _inbox(planned: Planned) -> Inbox:
    table, settle = planned.job.schedule, interval(planned.text)
    assert table.folder and table.out and settle  # noqa: S101, PT018 - a job without them is refused
    return Inbox(table.folder, table.out, settle)


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Hold a job's lock: two runners of one deployment would each close the other's runs."""
    path = settings().home.resolve() / "serve" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            msg = f"process {lock.read().strip()} already serves the job '{name}': stop it, or leave this job out"
            raise ServerError(msg) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _stop_by_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM or a closed terminal sets; a second signal ends the process at once."""
    stop = threading.Event()

    def request(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)  # runs and server notice it and end too
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
