"""The batch job as a flow: one task for each shard.

Prefect's own cache is not used for shards. The output folder keeps what is done, keyed by the model's digest, and
`shards()` lists only what is missing; a second record of the same fact could say "done" of rows that somebody has
deleted. So a run that is repeated, by hand, by a schedule or by Prefect's Retry button, does only what is missing.
"""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.artifacts import record_scores
from flows.retries import DELAYS, retry_transient
from flows.runs import recorded_run
from pipelines.folder_run import Shard
from pipelines.progress import Advance, progress
from pipelines.score import ScoreSummary, Scoring, open_scoring

T = TypeVar("T")
log = logging.getLogger("pipelines.score")  # its lines are those of the plain job
TRIES: dict[str, Any] = {
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_condition_fn": retry_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@flow(name="score", flow_run_name="score {folder.name} with {model}", persist_result=False)
def score_flow(
    folder: Path,
    model: str,
    out: Path,
    false_alarms: float | None = None,
    own_folder: bool = False,
    groups: bool = False,
    budget: int | None = None,
    false_discoveries: float | None = None,
) -> ScoreSummary:
    """Score every image under a folder and write the anomaly report.

    Args:
        folder: Images, in sub-folders or not.
        model: Reference to a scoring model, such as `tiles@champion`.
        out: Output folder: new, or of an earlier run.
        false_alarms: Share of good images that may be flagged; default: the model's.
        own_folder: Write into a new folder inside `out`, named by the time that the run was due and by its name.
        groups: Judge each sub-folder by the calibration images of its own name, where there are enough.
        budget: Flag at most so many images, the worst of those that would be flagged.
        false_discoveries: Instead of a false-alarm rate: share of the flagged images that may be good.

    Returns:
        Counts, and where the report is.
    """
    if own_folder:
        out = out / run_folder(flow_run.scheduled_start_time, flow_run.name)
    with recorded_run(), ExitStack() as held:
        rule = {
            "false_alarms": false_alarms, "groups": groups, "budget": budget, "false_discoveries": false_discoveries,
        }  # fmt: skip
        scoring = open_job(Sealed(held), folder, model, out, rule).value
        shards = scoring.shards()
        with progress(log, "score", len(scoring.files), "images", len(scoring.files) - scoring.left) as advance:
            for number, shard in enumerate(shards, start=1):
                score_shard(Sealed(scoring), Sealed(shard), Sealed(advance), number, len(shards))
        summary = finish(Sealed(scoring))
        record_scores(summary, folder, model)
        return summary


class Sealed(Generic[T]):
    """Carries an object into and out of a task: Prefect walks through records in search of futures, but not in here."""

    def __init__(self, value: T) -> None:
        self.value = value


@task(name="open", task_run_name="open {model}", **TRIES)
def open_job(held: Sealed[ExitStack], folder: Path, model: str, out: Path, rule: dict[str, Any]) -> Sealed[Scoring]:
    """List the images, fetch the model, take the output folder; `held` closes all of it."""
    return Sealed(held.value.enter_context(open_scoring(folder, model, out, **rule)))


@task(name="shard", task_run_name="shard {number} of {total}", **TRIES)
def score_shard(
    scoring: Sealed[Scoring],
    shard: Sealed[Shard],
    advance: Sealed[Advance],
    number: int,  # noqa: ARG001 - for the task run's name
    total: int,  # noqa: ARG001
) -> None:
    """Score one shard: 10 to 60 seconds of work, against the 10 milliseconds that a task costs."""
    scoring.value.run(shard.value, advance.value)


@task(name="finish", **TRIES)
def finish(scoring: Sealed[Scoring]) -> ScoreSummary:
    """Merge all rows, give verdicts, write results and the report."""
    return scoring.value.finish()


def run_folder(due: datetime, name: str) -> str:
    """The name of a scheduled run's folder: the same for another try of the same run, sorted by time.

    >>> run_folder(datetime(2026, 11, 21, 2, 0, tzinfo=UTC), "score inbox with tiles@champion")
    '2026-11-21T02-00-00Z-score-inbox-with-tiles-champion'
    """
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")
    return f"{due.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}-{plain}"
