"""From job files to Prefect's schedules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect.schedules import Schedule

from pipelines.errors import JobError
from pipelines.job import Job

INTERVAL = re.compile(r"(?P<number>[1-9]\d*)\s*(?P<unit>[smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
GIVE = "give job files, or folders that hold some"
FORMS = 'write a cron line such as "0 2 * * 0", or an interval such as "6h" (s, m, h, d, w)'


@dataclass(frozen=True, slots=True)
class Planned:
    """One schedule of one job."""

    verb: str  # train | score
    job: Job
    text: str  # as the job file has it
    schedule: Schedule

    @property
    def name(self) -> str:
        """The deployment's name."""
        return f"{self.verb}-{self.job.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What the flow is called with, as JSON holds it."""
        if self.verb == "train":
            return {"job": str(self.job.path)}
        table = self.job.schedule
        model = f"{self.job.name}@champion"
        return {"folder": str(table.folder), "model": model, "out": str(table.out), "own_folder": True}


def find_jobs(paths: Sequence[Path]) -> list[Path]:
    """Job files, and those in folders.

    Args:
        paths: Files are taken as they are, of folders the `*.toml` in them.

    Returns:
        The files, those of a folder sorted.

    Raises:
        JobError: A path is missing, or no job file is there.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise JobError(f"there is no {path}: {GIVE}")
        found += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not found:
        raise JobError(f"there is no .toml file in {', '.join(map(str, paths))}: {GIVE}")
    return found


def plan(jobs: Sequence[Job]) -> list[Planned]:
    """The schedules of all jobs; a job without one has none.

    Raises:
        JobError: No job has a schedule, two jobs have one name, or a `[schedule]` table cannot be carried out.
    """
    by_name: dict[str, Job] = {}
    for job in jobs:
        other = by_name.setdefault(job.name, job)
        if other is not job:
            raise JobError(f"{other.path} and {job.path} are both named '{job.name}': rename one, a name is one model")
    planned = [each for job in jobs for each in _plan(job)]
    if not planned:
        files = ", ".join(str(job.path) for job in jobs)
        raise JobError(f'no job has a schedule ({files}): add a table [schedule] with train = "0 2 * * 0", for example')
    return planned


def _plan(job: Job) -> list[Planned]:
    table = job.schedule
    if table.score is not None and (table.folder is None or table.out is None):
        missing = "folder" if table.folder is None else "out"
        raise JobError(f"{job.path}: 'schedule.score' needs 'schedule.{missing}': name the folder")
    texts = {"train": table.train, "score": table.score}
    return [
        Planned(verb, job, text, _schedule(f"{job.path}: 'schedule.{verb}'", text, table.timezone))
        for verb, text in texts.items()
        if text is not None
    ]


def _schedule(what: str, text: str, timezone: str) -> Schedule:
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:  # unknown, not a plain name, a folder
        msg = f"{what}: '{timezone}' is not a time zone: use a name such as UTC or Europe/Berlin"
        raise JobError(msg) from error
    if match := INTERVAL.fullmatch(text.strip()):
        every = timedelta(seconds=int(match["number"]) * SECONDS[match["unit"]])
        # From a fixed Monday, not from now: else a "1d" whose server is restarted every morning would never come.
        return Schedule(interval=every, anchor_date=datetime(2024, 1, 1, tzinfo=zone), timezone=timezone)
    try:
        return Schedule(cron=text, timezone=timezone)
    except ValueError as error:
        raise JobError(f"{what} is {text!r}, which is neither cron nor interval: {FORMS}") from error
