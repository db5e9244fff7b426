"""Where questions are handed out and answers are taken: one desk a run, and the desks of all runs in a folder."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import FolderError, ReviewError
from pipelines.report.folder import RUN, Run, read_record
from pipelines.review.answers import Answer, Answers, Queue
from pipelines.review.audit import estimate_precision, estimate_recall
from pipelines.review.run import ReviewedRun
from pipelines.review.similar import SimilarImages

LEASE = 120.0  # seconds that an image is shown to one person alone
MOST_TEXT = 200  # characters of a name or a key
MOST_OPEN = 4  # runs that are held in memory
MOST_LISTED = 100  # runs


class Desk:
    """Hands out questions and takes answers, for several people at once."""

    def __init__(self, run: ReviewedRun, answers: Answers, similar: SimilarImages | None = None) -> None:
        """Tie a run to where its answers are kept, and to what looks for similar images; None: nothing does."""
        self.run, self.answers, self.similar = run, answers, similar
        self._leases: dict[tuple[Queue, int], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def ask(self, queue: Queue, person: str, count: int) -> list[dict[str, Any]]:
        """Return the next images of a queue that nobody else is looking at."""
        found: list[dict[str, Any]] = []
        now, given = time.monotonic(), self.answers.said_of_run(self.run.name, queue)
        with self._lock:
            self._leases = {key: lease for key, lease in self._leases.items() if lease[1] > now}
            for number, again in self.run.pending(queue, given):
                holder = self._leases.get((queue, number))
                if holder is not None and holder[0] != person:
                    continue
                self._leases[queue, number] = (person, now + LEASE)
                found.append(asdict(self.run.image(number)) | {"again": again})
                if len(found) == count:
                    break
        return found

    def answer(self, given: dict[str, Any], who: str | None = None) -> Answer:
        """Keep an answer.

        Args:
            given: What the page has sent.
            who: Who has signed in; None: the name that the page has sent counts.

        Raises:
            ReviewError: It is none.
        """
        try:
            image, queue, model = self.run.image(int(given["number"])), given["queue"], self.run.model
            if queue not in self.run.queues:
                raise ReviewError(f"the queue is '{queue}': this run has {', '.join(self.run.queues)}")
            stratum = self.run.stratum_of(image.number) if queue == "audit" else None
            answer = Answer(
                sha256=image.sha256, path=image.path, run=self.run.name, queue=queue, verdict=given["verdict"],
                defect=read_text(given.get("defect")) or None, place=_read_place(given.get("place")),
                who=read_text(given.get("who")) if who is None else who, key=read_text(given["key"]), stratum=stratum,
                probability=None if stratum is None else self.run.audit.chances[stratum],
                model=model.name, version=None if model.version is None else str(model.version), score=image.score,
            )  # fmt: skip
        except KeyError as error:
            raise ReviewError(f"an answer without {error}, or about an image that the run does not have") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise ReviewError(f"the answer does not read: {error}") from None
        self.answers.add(answer)
        return answer

    def compare(self, queue: str, number: int) -> dict[str, Any]:
        """Return what to compare an image with; in an audit nothing, since the model must not speak there.

        Raises:
            KeyError: There is no such image.
        """
        if queue != "teach" or self.similar is None:
            return {"state": "off", "problem": ""}
        return self.similar.look(number)

    def figures(self) -> dict[str, Any]:
        """Return the progress of each queue, and the figures of the audit."""
        given = self.run.of_this_run(self.answers.said_of_run(self.run.name))
        found: dict[str, Any] = {
            queue: {
                "answered": len({each.sha256 for each in given if each.queue == queue}),
                "images": len(self.run.numbers),
            }
            for queue in self.run.queues
        }
        if "audit" in found:
            strata = self.run.count_strata(given)
            found["audit"] |= {
                "recall": asdict(estimate_recall(strata)),
                "precision": asdict(estimate_precision(strata)),
            }
        return found


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A finished run, as the list of runs shows it.

    Attributes:
        name: Of its output folder.
        model: Name and version of its model.
        started: When it was started, in ISO 8601.
        answered: Images that people have answered about.
    """

    name: str
    model: str
    started: str
    answered: int


class Desks:
    """The desks of all runs in a folder. The ones that were used last stay open."""

    def __init__(self, folder: Path, answers: Answers) -> None:
        """Name the folder: an output folder, or one that output folders lie in.

        Raises:
            FolderError: There is no such folder.
        """
        if not folder.is_dir():
            raise FolderError(f"{folder} is no folder: give the folder that runs write their output folders to")
        self.folder, self.answers = folder.resolve(), answers
        self._open: OrderedDict[str, tuple[int, Desk]] = OrderedDict()
        self._lock = threading.Lock()
        self._answered: dict[Path, float] = {}

    def runs(self) -> list[ListedRun]:
        """List the newest finished runs, the newest first, at most `MOST_LISTED`."""
        counts = self.answers.count_images()
        found = []
        for out in self._newest():
            record = read_record(out / RUN, Run)
            if record is not None and record.finished is not None:
                model = f"{record.model.name or 'model'}{f'/{record.model.version}' if record.model.version else ''}"
                found.append(ListedRun(out.name, model, record.started or "", counts.get(str(out), 0)))
        return sorted(found, key=lambda run: run.started, reverse=True)

    def desk(self, name: str) -> Desk:
        """Return the desk of a run, by the name of its output folder.

        Raises:
            FolderError: There is no such run, or there is nothing to review in it.
        """
        out = self._find(name)
        with self._lock:
            stamp = (out / RUN).stat().st_mtime_ns  # a folder that was scored again is another run
            known = self._open.get(name)
            if known is None or known[0] != stamp:
                known = self._open[name] = stamp, Desk(ReviewedRun(out), self.answers)
            self._open.move_to_end(name)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return known[1]

    def note_answer(self, out: Path) -> None:
        """Remember that the report of a run does not show its newest answer."""
        with self._lock:
            self._answered[out] = time.monotonic()

    def take_answered(self, quiet: float = 0.0) -> list[Path]:
        """Return the runs that had answers since they were last asked for.

        Args:
            quiet: Only runs without a new answer for this long (seconds).
        """
        ends = time.monotonic() - quiet
        with self._lock:
            found = [out for out, at in self._answered.items() if at <= ends]
            for out in found:
                del self._answered[out]
        return found

    def _find(self, name: str) -> Path:
        outs = {self.folder.name: self.folder} if (self.folder / RUN).is_file() else {name: self.folder / name}
        out = outs.get(name)
        is_plain = not name.startswith(".") and "/" not in name and "\0" not in name
        try:
            if is_plain and out is not None and out.resolve() == out and (out / RUN).is_file():
                return out
        except OSError:  # a name that no file system has
            pass
        raise FolderError("there is no such run")

    def _newest(self) -> Iterator[Path]:
        if (self.folder / RUN).is_file():
            yield self.folder
            return
        found = []
        for path in self.folder.glob(f"*/{RUN}"):
            try:
                self._find(path.parent.name)
                path.parent.name.encode()
                found.append((path.stat().st_mtime_ns, path.parent))
            except (FolderError, OSError, UnicodeError):  # hidden, deleted just now, or no name for an address
                continue
        yield from (out for _, out in sorted(found, reverse=True)[:MOST_LISTED])


def read_text(value: object) -> str:
    """Return a name or a key without spaces around it; nothing for None.

    Raises:
        ReviewError: It is no text, or a long one.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ReviewError(f"names and keys are texts of at most {MOST_TEXT} characters")
    return value.strip()


def _read_place(value: object) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    left, top, width, height = map(float, value)  # type: ignore[call-overload]
    return left, top, width, height
