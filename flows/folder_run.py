"""A job over a folder as tasks of a flow, one task for each shard.

Prefect's own cache is not used for shards. The output folder records the finished shards, keyed by the model's digest,
and `shards()` lists only the missing ones. A second record could mark rows as done that somebody has deleted. So a
repeated run (by hand, by a schedule or by Prefect's Retry button) does only the missing work.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import task

from flows.notify import announce, notify
from flows.retries import TRIES
from flows.runs import only_warned
from pipelines.base.progress import Advance, progress
from pipelines.batch.engines import Engine, RunAll, open_engine
from pipelines.batch.folder_run import FolderRun, Shard
from pipelines.jobfile.recurrence import interval

log = logging.getLogger("pipelines.registry.batch_runs")
T = TypeVar("T")


def run_shards(verb: str, model: str, opener: Callable[[], AbstractContextManager[FolderRun]], engine: Engine) -> Any:  # noqa: ANN401
    """Open a job, process its shards, finish it, and return what `finish` returns."""
    log = logging.getLogger(f"pipelines.{verb}")  # its lines are those of the plain job
    with ExitStack() as held:
        run_all = held.enter_context(open_engine(engine))
        job = open_job(Sealed(held), Sealed(opener), model).value
        shards = job.shards()
        with progress(log, verb, len(job.files), "images", len(job.files) - job.left) as advance:
            if engine == "local":
                for number, shard in enumerate(shards, start=1):
                    do_shard(Sealed(job), Sealed(shard), Sealed(advance), number, len(shards))
            elif shards:
                do_shards(Sealed(run_all), Sealed(job), Sealed(shards), Sealed(advance), len(shards), engine)
        return finish(Sealed(job))


class Sealed(Generic[T]):
    """Carry an object into and out of a task. Prefect searches records for futures, but does not look in here."""

    def __init__(self, value: T) -> None:
        self.value = value


@task(name="open", task_run_name="open {model}", **TRIES)
def open_job(
    held: Sealed[ExitStack],
    opener: Sealed[Callable[[], AbstractContextManager[FolderRun]]],
    model: str,  # noqa: ARG001 - for the task run's name
) -> Sealed[FolderRun]:
    """List the images, fetch the model and lock the output folder; `held` closes them."""
    return Sealed(held.value.enter_context(opener.value()))


@task(name="shard", task_run_name="shard {number} of {total}", **TRIES)
def do_shard(
    job: Sealed[FolderRun],
    shard: Sealed[Shard],
    advance: Sealed[Advance],
    number: int,  # noqa: ARG001 - for the task run's name
    total: int,  # noqa: ARG001
) -> None:
    """Process one shard: 10 to 60 seconds of work; a task itself costs 10 milliseconds."""
    job.value.run(shard.value, advance.value)


@task(name="shards", task_run_name="{total} shards on {engine}", **TRIES)
def do_shards(
    run_all: Sealed[RunAll],
    job: Sealed[FolderRun],
    shards: Sealed[Sequence[Shard]],
    advance: Sealed[Advance],
    total: int,  # noqa: ARG001 - for the task run's name
    engine: str,  # noqa: ARG001
) -> None:
    """Process all shards with another engine, which has its own record. A retry repeats the finished ones too."""
    run_all.value(job.value, shards.value, advance.value)


@task(name="finish", **TRIES)
def finish(job: Sealed[FolderRun]) -> Any:  # noqa: ANN401 - each verb has a summary of its own
    """Merge all rows, and write the results and the report."""
    return job.value.finish()


def report_run(out: Path, model: str, alarms: Sequence[str], *, series: bool, keep: str | None) -> None:
    """Raise the alarms of a finished run, and publish it for people and for later trainings.

    The results are already on disk: a failure here does not affect them.

    Args:
        out: Output folder of the run.
        model: The model that was asked for.
        alarms: Alarms of the run.
        series: The run is one of many in one folder, which get a history page.
        keep: How long runs of the same schedule are kept, such as 90d.
    """
    for sentence in alarms:
        log.warning("alarm: %s", sentence)
    if alarms:
        with only_warned("the event of the alarm was not emitted"):
            announce("alarm", model.partition("@")[0], alarms)
        if list(alarms) != alarms_before(out):
            notify(
                f"Kintsugi: alarm of {model}",
                [
                    *alarms,
                    f"Report: {(out / 'report.html').resolve()}",
                    f"Review: kintsugi review {shlex.quote(str(out.resolve()))}",
                ],
            )
    if series:
        with only_warned("the history pages were not updated"):
            tidy(out, keep)
    with only_warned("the run is not in MLflow, so the next training cannot use its drift"):
        publish(out)
    if keep is not None and (age := interval(keep)):
        with only_warned("old runs stay in MLflow until the next run"):
            forget(out, age)


def alarms_before(out: Path) -> list[str]:
    """Return the alarms of the schedule's previous run: the same alarm is not sent again every quarter of an hour."""
    from pipelines.batch.retention import runs_like

    try:
        before = [run for run in runs_like(out) if run.name < out.name]
        return list(json.loads((before[-1] / "run.json").read_text(encoding="utf-8"))["alarms"]) if before else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def tidy(out: Path, keep: str | None) -> None:
    """Remove old runs of the same schedule, and update the history pages."""
    from pipelines.batch.retention import forget_runs
    from pipelines.report import write_history

    if keep is not None and (age := interval(keep)):
        forget_runs(out, age, datetime.now(UTC))
    write_history(out.parent)


@task(name="publish", **TRIES)
def publish(out: Path) -> None:
    """Put the figures, the report and the record of a run into MLflow, if its model is in a registry."""
    from pipelines.registry.batch_runs import publish_run

    publish_run(out)


def forget(out: Path, age: timedelta) -> None:
    """Remove old runs of the same schedule from MLflow."""
    from pipelines.registry.batch_runs import forget_published

    forget_published(out, age, datetime.now(UTC))


def run_folder(due: datetime, name: str) -> str:
    """Return the folder name of a scheduled run: names sort by time, and a retry gets the same name.

    >>> run_folder(datetime(2026, 11, 21, 2, 0, tzinfo=UTC), "score inbox with tiles@champion")
    '2026-11-21T02-00-00Z-score-inbox-with-tiles-champion'
    """
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
    return f"{due.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}-{plain}"
