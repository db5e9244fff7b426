"""What scheduled runs leave behind, for as long as it is wanted."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.base.locks import locked
from pipelines.images import OUTPUT_MARKER
from pipelines.jobfile.recurrence import schedule_of

log = logging.getLogger(__name__)


def runs_like(run: Path) -> list[Path]:
    """Folders of the same schedule's runs beside one that it made, that one among them, by time; none of others'."""
    own = schedule_of(run)
    if own is None or not run.parent.is_dir():
        return []
    return sorted(each for each in run.parent.iterdir() if schedule_of(each) == own and not each.is_symlink())


def forget_runs(run: Path, age: timedelta, now: datetime) -> list[Path]:
    """Remove folders of finished runs of the same schedule that have grown old, and no others.

    Args:
        run: The folder of one of its runs, which is named as schedules name them.
        age: Runs that finished longer ago are removed.
        now: With its time zone.

    Returns:
        What was removed.
    """
    removed = []
    for folder in runs_like(run):
        finished = _finished(folder)
        if finished is None or now - finished <= age:
            continue
        # Without the marker it is no folder of ours, and a lock that is held says that somebody does it again just now.
        with suppress(OSError):
            with locked(folder / OUTPUT_MARKER / "lock", wait=False):
                pass
            _remove(folder)
            removed.append(folder)
    if removed:
        log.info("removed %d runs that were older than 'schedule.keep'", len(removed))
    return removed


def _remove(folder: Path) -> None:
    """Remove a run, its account last: one that is removed in part is known to be a run, and removed by the next."""
    for path in folder.iterdir():
        if path.name == "run.json":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / "run.json").unlink()
    folder.rmdir()


def _finished(folder: Path) -> datetime | None:
    try:
        text = json.loads((folder / "run.json").read_text(encoding="utf-8"))["finished"]
        moment = datetime.fromisoformat(text)
    except (OSError, ValueError, KeyError, TypeError):  # not finished, damaged, or somebody else's
        return None
    return moment if moment.tzinfo is not None else None
