"""What every job over a folder shares: shards, rows that are kept as they come, and how long each stage takes."""

from __future__ import annotations

import contextlib
import heapq
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pipelines.columns import Row
from pipelines.images import ImageFile, UnreadableFolder
from pipelines.modelfile import ModelFile
from pipelines.output import GALLERY_ROWS, OutputFolder
from pipelines.progress import Advance
from pipelines.rows import unreadable_row

T = TypeVar("T")
log = logging.getLogger(__name__)
SHARD_FILES = 256  # seconds to a minute of work
KEEP_SECONDS = 20.0  # between two writes of rows: what a kill can cost


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work for whoever schedules it."""

    number: int
    files: tuple[ImageFile, ...]


@dataclass(slots=True, kw_only=True)
class FolderRun(ABC):
    """An open job: an output folder held, a model loaded, a list of files."""

    folder: Path
    files: tuple[ImageFile, ...]
    unreadable: tuple[UnreadableFolder, ...]
    model: ModelFile
    output: OutputFolder
    left: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "run": 0.0, "write": 0.0})
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    _worst: list[float] = field(default_factory=list)  # heap of the highest ranks so far

    @property
    def total(self) -> int:
        """Rows that there will be: one for each file, and for each sub-folder that cannot be read."""
        return len(self.files) + len(self.unreadable)

    def shards(self) -> list[Shard]:
        """What is left to do, in pieces. Files that failed are tried again."""
        done = self.output.done(self.files, self.holds)
        self._worst = heapq.nlargest(GALLERY_ROWS, done.values())
        heapq.heapify(self._worst)
        if done:
            log.info("%d of %d images are done already", len(done), len(self.files))
        left = [file for file in self.files if file.relative not in done]
        self.left = len(left)
        pieces = range(0, len(left), SHARD_FILES)
        return [Shard(number, tuple(left[start : start + SHARD_FILES])) for number, start in enumerate(pieces)]

    def run(self, shard: Shard, advance: Advance | None = None) -> None:
        """Do one shard. Rows appear as they come, every `KEEP_SECONDS`; a run that is interrupted keeps them too."""
        worst = list(self._worst)
        rows: list[Row] = []
        kept = time.monotonic()
        try:
            for new in self.rows_of(shard.files):
                rows += new
                if advance:
                    advance(len(new), f"most time in {max(self.seconds, key=lambda stage: self.seconds[stage])}")
                if time.monotonic() - kept > KEEP_SECONDS:
                    self._keep(rows)
                    rows, kept = [], time.monotonic()
            self._keep(rows)
        except BaseException:  # Ctrl-C above all
            self._worst = worst  # if this process tries again, the same images are among the worst again
            with contextlib.suppress(OSError):  # of a full disk it is told already
                self._keep(rows)
            raise

    @abstractmethod
    def holds(self, row: Row) -> bool:
        """Whether what a row of an earlier run tells of is still there, so that nothing is left to do."""

    @abstractmethod
    def finish(self) -> Any:  # noqa: ANN401 - each verb has a summary of its own
        """Merge all rows, write results and the report."""

    @abstractmethod
    def rows_of(self, files: Sequence[ImageFile]) -> Iterator[list[Row]]:
        """The rows of some files, as they come."""

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time that a stage takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def timed_each(self, items: Iterator[T]) -> Iterator[T]:
        """Items, with the time that waiting for each takes counted as decoding."""
        while True:
            with self.timed("decode"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def among_worst(self, rank: float) -> bool:
        """Whether an image may be among the worst of all, of which there are pictures; it counts from now on."""
        if len(self._worst) == GALLERY_ROWS and rank < self._worst[0]:
            return False
        push = heapq.heappush if len(self._worst) < GALLERY_ROWS else heapq.heappushpop
        push(self._worst, rank)
        return True

    def merged(self) -> list[Row]:
        """The rows of all files and of sub-folders that cannot be read, by path."""
        rows = self.output.merge(self.files) + [unreadable_row(place) for place in self.unreadable]
        return sorted(rows, key=lambda row: str(row["path"]))

    def _keep(self, rows: Sequence[Row]) -> None:
        """Write rows down. What a later run finds does not depend on how many are written at once."""
        if not rows:
            return
        with self.timed("write"):
            self.output.write_shard(sorted(rows, key=lambda row: str(row["path"])))
