"""What every job over a folder shares: shards, rows that are kept as they come, and how long each stage takes."""

from __future__ import annotations

import contextlib
import heapq
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.base.concurrency import Clock
from pipelines.base.progress import Advance
from pipelines.batch.options import RunOptions
from pipelines.batch.output_folder import OutputFolder
from pipelines.batch.results_files import Results, open_results
from pipelines.batch.rows import unreadable_row
from pipelines.batch.schema import Row
from pipelines.batch.shard_store import GALLERY_ROWS
from pipelines.errors import OutputError
from pipelines.images import FileList, ImageFile, LeftOut, UnreadableFolder
from pipelines.models.model_file import ModelFile
from pipelines.models.session import AnyRestoring, Session

log = logging.getLogger(__name__)
SHARD_FILES = 256  # seconds to a minute of work,
SHARD_BYTES = 64 * 2**20  # as are those of few large images
KEEP_SECONDS = 20.0  # between two writes of rows: what a kill can cost
STAGES = ("decode", "run", "write")


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A unit of work for whoever schedules it."""

    number: int
    of: FileList
    indices: NDArray[np.int64]

    @property
    def files(self) -> FileList:
        """What is to be done."""
        return self.of.take(self.indices)


def _pieces(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Cut files of these sizes into shards."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start] - sizes[start]
        within = int(np.searchsorted(ends, before + SHARD_BYTES, side="right"))
        end = max(start + 1, min(start + SHARD_FILES, within))
        yield slice(start, end)
        start = end


class Worst:
    """The highest ranks so far: of these images there are pictures. Threads may ask at the same time."""

    def __init__(self, ranks: Iterable[float] = ()) -> None:
        """Begin with some."""
        self._ranks = list(ranks)
        heapq.heapify(self._ranks)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Worst], tuple[list[float]]]:
        """A lock stays where it is."""
        return Worst, (self._ranks,)

    def copy(self) -> Worst:
        """As it is now."""
        return Worst(self._ranks)

    def enter(self, rank: float) -> bool:
        """Return whether an image of this rank may be among the worst of all; it counts from now on."""
        with self._lock:
            if len(self._ranks) == GALLERY_ROWS and rank < self._ranks[0]:
                return False
            push = heapq.heappush if len(self._ranks) < GALLERY_ROWS else heapq.heappushpop
            push(self._ranks, rank)
            return True


@dataclass(slots=True, kw_only=True)
class FolderRun(ABC):
    """An open job: an output folder held, a model loaded, a list of files."""

    verb: ClassVar[str]
    counted: ClassVar[tuple[str, ...]]  # of rows, in run.json

    folder: Path
    files: FileList
    unreadable: tuple[UnreadableFolder, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    model: ModelFile
    session: Session | AnyRestoring
    output: OutputFolder
    options: RunOptions
    left: int = 0
    stages: Clock = field(default_factory=lambda: Clock(*STAGES))
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    worst: Worst = field(default_factory=Worst)
    ran_on: set[str] = field(default_factory=set)  # providers that did shards, here or on other machines

    @property
    def total(self) -> int:
        """Rows that there will be: one for each file, and for each sub-folder that cannot be read."""
        return len(self.files) + len(self.unreadable)

    @property
    def model_name(self) -> str:
        """The name that the model is registered under, or that its file has."""
        return self.model.name or self.session.metadata.name

    def shards(self) -> list[Shard]:
        """List what is left to do, in pieces. Files that failed are tried again."""
        self.output.store.forget_damaged()
        self.look_back()
        left, ranks = self.output.store.find_left(self.files, self.is_done)
        self.worst = Worst(ranks)
        if len(left) < len(self.files):
            log.info("%d of %d images are already done", len(self.files) - len(left), len(self.files))
        self.left = len(left)
        return self.cut(left)

    def cut(self, indices: NDArray[np.int64]) -> list[Shard]:
        """Cut some of the files into pieces."""
        pieces = _pieces(self.files.sizes[indices])
        return [Shard(number, self.files, indices[piece]) for number, piece in enumerate(pieces)]

    def look_back(self) -> None:  # noqa: B027 - most verbs have nothing to learn
        """Learn from the rows so far what `is_done` asks for."""

    def run(self, shard: Shard, advance: Advance | None = None) -> None:
        """Do one shard. Rows appear as they come, every `KEEP_SECONDS`; a run that is interrupted keeps them too."""
        worst = self.worst.copy()
        self.ran_on.add(self.session.provider)
        rows: list[Row] = []
        kept = time.monotonic()
        try:
            with contextlib.closing(self.make_rows(shard.files)) as coming:
                for new in coming:
                    rows += new
                    if advance:
                        advance(len(new), f"most time in {self.stages.slowest}")
                    if time.monotonic() - kept > KEEP_SECONDS:
                        self._keep(rows)
                        rows, kept = [], time.monotonic()
            self._keep(rows)
        except BaseException:  # Ctrl-C above all
            self.worst = worst  # if this process tries again, the same images are among the worst again
            with contextlib.suppress(OSError):  # of a full disk it is told already
                self._keep(rows)
            raise

    def for_worker(self) -> Self:
        """The same job, as it is sent to another machine: shards hold the files, so they need not go twice."""
        return replace(self, files=self.files[:0])

    @abstractmethod
    def is_done(self, row: Row) -> bool:
        """Return whether what a row of an earlier run names is still there, so that nothing is left to do."""

    @abstractmethod
    def finish(self) -> Any:  # noqa: ANN401 - each verb has a summary of its own
        """Merge all rows, write results and the report."""

    @abstractmethod
    def describe(self, counts: Mapping[str, int], *, finished: bool) -> dict[str, Any]:
        """Describe the run, for run.json."""

    @abstractmethod
    def make_rows(self, files: Sequence[ImageFile]) -> Generator[list[Row]]:
        """Make the rows of some files, as they come."""

    def begin(self) -> None:
        """Write run.json of a run that has done nothing yet."""
        self.output.write_json("run.json", self.describe(dict.fromkeys(self.counted, 0), finished=False))

    def write_results(self, complete: Callable[[list[Row]], None]) -> Results:
        """Write the results files, and the pictures of the worst images.

        Args:
            complete: Adds to some rows, by path, what is known at the end.
        """
        self.session.close()  # rows and the report have the room now
        self.output.forget_evaluation()
        named = {"model": self.model_name, "version": self.model.version}
        with open_results(self.output.out) as results:
            for rows in self.merge_rows():
                complete(rows)
                results.add([row | named for row in rows])
        self.output.write_gallery(results.worst)
        return results

    def write_report(self, results: Results) -> tuple[dict[str, Any], Path]:
        """Write run.json and the report of a finished run, log what it warns of, and return both."""
        from pipelines.report import write_report  # its imports take long: the first image need not wait

        run = self.describe({name: results.counts[name] for name in self.counted}, finished=True)
        self.output.write_json("run.json", run)
        report = write_report(self.output.out)
        for warning in run["warnings"]:
            logging.getLogger(f"pipelines.{self.verb}").warning("%s", warning)
        return run, report

    def count_missing(self) -> int:
        """Count the files that have no row."""
        return sum(len(block.files) - len(block.places) for block in self.output.store.blocks(self.files, ("path",)))

    def merge_rows(self) -> Iterator[list[Row]]:
        """Yield the rows of all files and of sub-folders that cannot be read, by path, some thousands at a time.

        Raises:
            OutputError: Rows are missing: somebody has deleted them, or another machine's are not to be seen yet.
        """
        closed = [unreadable_row(place) for place in self.unreadable]
        for block in self.output.store.blocks(self.files):
            if lacking := len(block.files) - len(block.places):
                msg = f"{lacking} or more images have no row in {self.output.out}: start the same command again"
                raise OutputError(msg)
            rows = block.rows.to_pylist()
            end = block.files.relatives[-1].as_py()
            while closed and closed[0]["path"] <= end:
                rows.append(closed.pop(0))
            yield sorted(rows, key=lambda row: str(row["path"]))
        if closed:
            yield closed

    def _keep(self, rows: Sequence[Row]) -> None:
        """Write rows down. What a later run finds does not depend on how many are written at once."""
        if not rows:
            return
        with self.stages.timed("write"):
            self.output.store.write(rows)
