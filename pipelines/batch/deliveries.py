"""Deliveries: sub-folders that appear in an inbox, each to be worked on when it has come whole.

That nothing has changed for a while is seen by looking again: copies often keep the times of their originals, and
another machine's clock may be wrong. What was in a delivery when it was worked on is kept, so that one that grows
later, at any depth and even while it is worked on, is worked on again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pipelines.base.files import write_json
from pipelines.images import OUTPUT_MARKER

log = logging.getLogger(__name__)
RECORD = ".arrivals.json"  # in the folder of the reports: deliveries that are done, as they were then
TRIES = 3  # for a delivery that fails, before it is left alone until something comes into it
AGAIN_SECONDS = 300.0  # at least, between two looks into all that is done
SHARE = 20  # and so many times what the last one took

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # gone, or a link to nowhere

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
    _given: dict[str, tuple[Look, int]] = field(default_factory=dict)  # as it was when it was given out, and how often
    _done: dict[str, Look] | None = None  # as it was when it was done; None: not read yet
    _due: float = 0.0  # when to look into what is done
    _skipped: set[str] = field(default_factory=set)
    _unreadable: dict[Path, str] = field(default_factory=dict)  # and why: reported once, not at each look
    _session: str = ""

    def open(self) -> None:
        """Begin, or begin again after an outage: what was given out and is not done is given out once more."""
        self._given.clear()
        self._session = secrets.token_hex(4)

    def find_next(self) -> Path | None:
        """Find the first delivery that is whole and that nothing has been made of; None while there is none.

        It is not given out again unless something comes into it, or `record_failure` is called. What is not readable in
        full, for want of rights or on a share that is away, waits until it can be: the others go on.
        """
        now = self.clock()
        try:
            done = self._read()
        except OSError as error:  # taken as empty, it would have everything done again
            self._warn(self.out / RECORD, error)
            return None
        self._unreadable.pop(self.out / RECORD, None)
        into_all = now >= self._due
        for name in self._names():
            given = self._given.get(name)
            if name in done and given is None and not into_all:
                continue
            look = self._look_at(name)
            if look is None or not look[0] or look == done.get(name) or (given is not None and given[0] == look):
                continue  # (an empty folder is one that is about to be filled)
            before, since = self._seen.get(name, (None, now))
            if look != before:
                self._seen[name] = look, now
            elif now - since >= self.settle.total_seconds():
                del self._seen[name]
                self._given[name] = look, 1
                return self.folder / name
        waits = any(name in done for name in self._seen)
        if into_all and not waits:
            self._due = now + max(AGAIN_SECONDS, SHARE * (self.clock() - now))
        return None

    def name_attempt(self, delivery: Path) -> str:
        """Name the work on a delivery that was given out: another one for other contents, or another try."""
        look, tries = self._given[delivery.name]
        return f"{self._session}-{delivery}-{look}-{tries}"

    def record_done(self, delivery: Path) -> None:
        """Record that a delivery was worked on, as it was when it was given out."""
        look, _ = self._given.pop(delivery.name)
        done = self._read()
        done[delivery.name] = look
        self._due = 0.0  # something may have come into it meanwhile
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / RECORD, done)
        except OSError as error:  # the work is done: nobody is to stop for this
            again = (
                "the next delivery that is done writes it again; after a restart before that, this one is done again"
            )
            log.warning("%s is done, but %s cannot be written (%s): %s", delivery, self.out / RECORD, error, again)

    def record_failure(self, delivery: Path) -> bool:
        """Return whether a delivery whose work has failed is to be tried once more; the failure counts."""
        look, tries = self._given[delivery.name]
        self._given[delivery.name] = look, tries + 1
        return tries < TRIES

    def _names(self) -> Iterator[str]:
        """Names of sub-folders; sorted."""
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(
                    entry.name for entry in entries if not entry.name.startswith(".") and self._is_folder(entry)
                )
        except OSError as error:  # a share that is away for a moment: there is a next look
            self._warn(self.folder, error)
            return
        self._unreadable.pop(self.folder, None)
        for name in names:
            if name in self._skipped:
                continue
            if name.encode("utf-8", "replace") != name.encode("utf-8", "surrogateescape"):
                log.warning("left out %r in %s: rename it, its name is not UTF-8 text", name, self.folder)
                self._skipped.add(name)
                continue
            yield name

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:  # a link to where we may not look
            self._warn(Path(entry.path), error)
            return False

    def _look_at(self, name: str) -> Look | None:
        """Look at a delivery; None for what is none, and for one that cannot be read in full."""
        delivery = self.folder / name
        try:
            look = None if _is_there(delivery / OUTPUT_MARKER) else _look(delivery)
        except OSError as error:
            self._warn(delivery, error)
            return None
        if self._unreadable.pop(delivery, None) is not None:
            log.info("%s can be read again", delivery)
        return look

    def _warn(self, path: Path, error: OSError) -> None:
        """Report what cannot be read, once for each reason."""
        reason = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        if self._unreadable.get(path) != reason:
            self._unreadable[path] = reason
            advice = "give this user the right to read it, or check that the share is mounted; Kintsugi tries again"
            log.warning("%s cannot be read (%s): %s", path, reason, advice)

    def _read(self) -> dict[str, Look]:
        """Read what is done.

        Raises:
            OSError: The record is there, or may be there, and cannot be read.
        """
        if self._done is None:
            done: dict[str, Look] = {}
            with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
                kept = json.loads((self.out / RECORD).read_text(encoding="utf-8"))
                done = {name: (int(look[0]), int(look[1]), int(look[2])) for name, look in kept.items()}
            self._done = done
        return self._done


def _is_there(path: Path) -> bool:
    """Return whether a path is there.

    Raises:
        OSError: The system does not say.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _look(folder: Path) -> Look:
    """Count what is below a folder; what goes meanwhile is not counted, nor are links to nowhere.

    Raises:
        OSError: Something below it cannot be read, so that nobody knows what is there.
    """
    files = total = newest = 0
    for where, _, names in os.walk(folder, onerror=_raise_unless_gone):
        for name in names:
            try:
                stat = Path(where, name).stat()
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue
            files, total, newest = files + 1, total + stat.st_size, max(newest, stat.st_mtime_ns)
    return files, total, newest


def _raise_unless_gone(error: OSError) -> None:
    if error.errno not in _GONE:
        raise error
