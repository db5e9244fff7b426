"""Deliveries: sub-folders that appear in an inbox, each to be worked on when it has come whole.

That nothing has changed for a while is seen by looking again: copies often keep the times of their originals, and
another machine's clock may be wrong.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

Look = tuple[int, int, int]  # files, bytes, newest change: another one when anything has come, grown or gone


@dataclass(slots=True)
class Inbox:
    """A folder whose sub-folders are deliveries, and where what is made of each goes.

    Args:
        folder: The inbox.
        out: Where each delivery gets a folder of its own name.
        settle: How long nothing may have changed.
        clock: In seconds.
    """

    folder: Path
    out: Path
    settle: timedelta
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[Look, float]] = field(default_factory=dict)  # by name: as it was, and since when
    _given: dict[str, int] = field(default_factory=dict)  # by name: its folder's time when it was given out

    def arrived(self) -> Path | None:
        """The first delivery that is whole and that nothing has been made of; None while there is none.

        It is not given out again unless something comes into it.
        """
        for name, changed in self._waiting():
            look, now = _look(self.folder / name), self.clock()
            if look[0] == 0:
                continue  # an empty folder is one that is about to be filled
            before, since = self._seen.get(name, (None, now))
            if look != before:
                self._seen[name] = look, now
            elif now - since >= self.settle.total_seconds():
                del self._seen[name]
                self._given[name] = changed
                return self.folder / name
        return None

    def take_back(self, delivery: Path) -> None:
        """Give a delivery out again: nobody could be found to work on it."""
        self._given.pop(delivery.name, None)

    def _waiting(self) -> Iterator[tuple[str, int]]:
        """Names of sub-folders that are to be looked at, and when something came into them last; sorted."""
        try:
            with os.scandir(self.folder) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:  # a share that is away for a moment: there is a next look
            return
        for entry in sorted(found, key=lambda entry: entry.name):
            with suppress(OSError):
                changed = entry.stat().st_mtime_ns
                if entry.is_dir() and self._given.get(entry.name) != changed and not self._done(entry.name, changed):
                    yield entry.name, changed

    def _done(self, name: str, changed: int) -> bool:
        """Whether a run over it has finished since something came into it last."""
        account = self.out / name / "run.json"
        try:
            finished = json.loads(account.read_text(encoding="utf-8"))["finished"]
            return finished is not None and account.stat().st_mtime_ns >= changed
        except (OSError, ValueError, KeyError, TypeError):
            return False


def _look(folder: Path) -> Look:
    """Count what is below a folder; what goes meanwhile is not counted."""
    files = total = newest = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                stat = Path(where, name).stat()
                files, total, newest = files + 1, total + stat.st_size, max(newest, stat.st_mtime_ns)
    return files, total, newest
