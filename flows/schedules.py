"""From job files to Prefect's schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect.schedules import Schedule

from pipelines.errors import JobError
from pipelines.jobfile.job import Job
from pipelines.jobfile.recurrence import interval

JOBS = Path("jobs")
GIVE = "give job files, or folders with job files"


@dataclass(frozen=True, slots=True)
class Planned:
    """One schedule of one job."""

    verb: str  # train | score | restore | arrivals
    job: Job
    text: str  # as in the job file
    schedule: Schedule | None  # None: it waits for deliveries

    @property
    def name(self) -> str:
        """Name of the deployment."""
        return f"{self.verb}-{self.job.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments of the flow, as JSON values."""
        if self.verb == "train":
            return {"job": str(self.job.path), "if_needed": True}
        table = self.job.schedule
        model = f"{self.job.name}@champion"
        found = {
            "folder": str(table.folder),
            "model": model,
            "out": str(table.out),
            "own_folder": self.verb != "arrivals",
            "series": True,
            "alarm": self.job.alarm.model_dump(),
            "keep": table.keep if self.schedule else None,
        }
        return found | (table.rule | {"against": table.against} if self.flow == "score" else {})

    @property
    def flow(self) -> str:
        """Name of the flow: train, score or restore."""
        return self.job.verb if self.verb == "arrivals" else self.verb


def find_jobs(paths: Sequence[Path]) -> list[Path]:
    """Return job files, and the job files in folders.

    Args:
        paths: Files, and folders with `*.toml` files; an empty list means the folder `jobs`.

    Returns:
        The files; those of a folder are sorted.

    Raises:
        JobError: A path is missing, or there is no job file.
    """
    if not paths and not JOBS.is_dir():
        raise JobError(f"the folder ./{JOBS} does not exist: {GIVE}")
    paths = paths or [JOBS]
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise JobError(f"{path} does not exist: {GIVE}")
        found += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not found:
        raise JobError(f"no .toml file in {', '.join(map(str, paths))}: {GIVE}")
    return found


def plan(jobs: Sequence[Job]) -> list[Planned]:
    """Return the schedules of all jobs; jobs without a schedule are skipped.

    Raises:
        JobError: No job has a schedule, or two jobs have the same name.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        other = by_name.setdefault(job.name, job)
        if other is not job:
            raise JobError(
                f"{other.path} and {job.path} both have the name '{job.name}', and each name is one model: rename one"
            )
    planned = [each for job in jobs for each in _plan(job)]
    if not planned:
        files = ", ".join(str(job.path) for job in jobs)
        raise JobError(f'no job has a schedule ({files}): add a table [schedule] with train = "0 2 * * 0", for example')
    return planned


def _plan(job: Job) -> list[Planned]:
    table = job.schedule
    texts = {"train": table.train, "score": table.score, "restore": table.restore}
    planned = [
        Planned(verb, job, text, _schedule(text, table.timezone)) for verb, text in texts.items() if text is not None
    ]
    return planned + ([Planned("arrivals", job, table.arrivals, None)] if table.arrivals else [])


def _schedule(text: str, timezone: str) -> Schedule:
    if every := interval(text):
        # From a fixed Monday, not from now: else a "1d" would never be due if the server is restarted every morning.
        return Schedule(interval=every, anchor_date=datetime(2024, 1, 1, tzinfo=ZoneInfo(timezone)), timezone=timezone)
    return Schedule(cron=text, timezone=timezone)
