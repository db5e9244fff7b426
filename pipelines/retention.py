"""What scheduled runs leave behind, for as long as it is wanted."""

from __future__ import annotations

import json
import logging
import re
import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pipelines.images import OUTPUT_MARKER
from pipelines.locks import locked

log = logging.getLogger(__name__)
OWN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z-.+")  # folders that a schedule names by the time


def forget_runs(out: Path, age: timedelta, now: datetime) -> list[Path]:
    """Remove folders of finished runs that have grown old: those that a schedule made and named, and no others.

    Args:
        out: Where the runs have their folders.
        age: Runs that finished longer ago are removed.
        now: With its time zone.

    Returns:
        What was removed.
    """
    removed = []
    for folder in sorted(out.iterdir()) if out.is_dir() else ():
        if folder.is_symlink() or not OWN.fullmatch(folder.name):
            continue
        finished = _finished(folder)
        if finished is None or now - finished <= age:
            continue
        # Without the marker it is no folder of ours, and a lock that is held says that somebody does it again just now.
        with suppress(OSError), locked(folder / OUTPUT_MARKER / "lock", wait=False):
            shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed is tried again by the next run
            removed.append(folder)
    if removed:
        log.info("removed %d runs that finished more than %d days ago", len(removed), age.days)
    return removed


def _finished(folder: Path) -> datetime | None:
    try:
        text = json.loads((folder / "run.json").read_text(encoding="utf-8"))["finished"]
        moment = datetime.fromisoformat(text)
    except (OSError, ValueError, KeyError, TypeError):  # not finished, damaged, or somebody else's
        return None
    return moment if moment.tzinfo is not None else None
