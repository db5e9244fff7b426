"""Images to compare one image with: the closest good ones, and the named defects that it is most like.

A thread describes images while people answer, so that no answer waits for it. Named defects give a hint and no answer:
docs/decisions/109-hints-from-named-defects.md has the measurements behind the numbers below.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.base.safe_text import one_line
from pipelines.errors import FolderError, KintsugiError
from pipelines.images import ImageFile
from pipelines.models.gallery import CLOSEST, measure_spread, rank_closest
from pipelines.review.answers import Answers
from pipelines.review.description import Description
from pipelines.review.run import ReviewedRun

log = logging.getLogger(__name__)
MOST_GOOD = 200  # good images that are described
FEWEST_GOOD = 20  # images answered "good": with fewer, unflagged images of the lowest scores take their place
ENOUGH_GOOD = 60  # described images, from which the closest ones are shown
MOST_NAMED = 300  # named defects that are described, the newest
FEWEST_NAMED = 50  # named defects: with 30, more than a third of the hints were wrong
NEAREST, AGREE = 5, 4  # named defects that are asked, and how many of them must have the same name
PATIENCE = 60.0  # seconds that the end of the page waits for the image that is being described
FRESH = 5.0  # seconds after which answers are read again

Describe = Callable[[ImageFile, str], Description | None]


@dataclass(frozen=True, slots=True)
class _Named:
    sha256: str
    name: str
    run: str


class SimilarImages:
    """Looks for images that are similar to those of a run."""

    def __init__(self, run: ReviewedRun, answers: Answers, open_model: Callable[[], Describe]) -> None:
        """Tie it to a run. Nothing is opened or described before `start`.

        Args:
            run: The run.
            answers: Where answers are kept.
            open_model: Opens the model of the run; it may raise a `KintsugiError`, and then nothing is shown.
        """
        self._run, self._answers, self._open = run, answers, open_model
        self._changed = threading.Condition()
        self._described: dict[str, Description | None] = {}  # by digest; None: it cannot be described
        self._wanted: list[int] = []  # images that somebody looks at, the last one first to be described
        self._good: list[int] = []
        self._kind: Literal["answered", "unflagged"] = "unflagged"
        self._named: list[_Named] = []
        self._runs: dict[str, ReviewedRun | None] = {run.name: run}
        self._problem: str | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="similar images", daemon=True)

    def start(self) -> None:
        """Start to describe images, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the image that it describes: ONNX Runtime aborts a process that ends within a call."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(PATIENCE)

    def look(self, number: int) -> dict[str, Any]:
        """Return what is known by now of the images that one is similar to.

        Args:
            number: Of the image in the run.

        Returns:
            `state` ("working": ask again; "ready"; "off", with the reason as `problem`). Ready: `closest`, the number
            and path of good images, closest first; `kind`, why they count as good ("answered", "unflagged"); `among`,
            how many there are; `hint`, None or `name`, `alike` of `of` nearest named defects, and `share` of all.

        Raises:
            KeyError: There is no such image.
        """
        sha256 = self._run.image(number).sha256
        with self._changed:
            if self._problem is not None:
                return {"state": "off", "problem": self._problem}
            if sha256 in self._described and self._described[sha256] is None:
                return {"state": "off", "problem": "this image cannot be described"}
            self._wanted = [*self._wanted[-20:], number]
            self._changed.notify()
            own = self._described.get(sha256)
            good = [each for each in self._good if self._run.sha256(each) in self._described]
            if own is None or not self._good or len(good) < min(len(self._good), ENOUGH_GOOD):
                return {"state": "working"}
            known = [(each, self._described[self._run.sha256(each)]) for each in good]
            named = [(each, self._described.get(each.sha256)) for each in self._named if each.sha256 != sha256]
            kind = self._kind
        known = [(each, found) for each, found in known if found is not None]
        others = [(each, found) for each, found in known if each != number]
        if not others:
            return {"state": "off", "problem": "no good image of this run can be read"}
        centre, spread = measure_spread(np.stack([found.whole for _, found in known if found is not None]))
        codes = (np.stack([found.whole for _, found in others if found is not None]) - centre) / spread
        order, _ = rank_closest(codes, (own.whole - centre) / spread, CLOSEST)
        closest = [others[at][0] for at in order.tolist()]
        return {
            "state": "ready",
            "kind": kind,
            "among": len(others),
            "closest": [{"number": each, "path": self._run.image(each).path} for each in closest],
            "hint": find_hint(
                own.place,
                [(each.name, found.place) for each, found in named if found is not None],
                [found.place for _, found in known if found is not None],
            ),
        }

    def _work(self) -> None:
        try:
            describe, read = self._open(), -FRESH
            while self._problem is None and not self._ended:
                if time.monotonic() - read >= FRESH:
                    self._refresh()
                    read = time.monotonic()
                with self._changed:
                    task = next(self._tasks(), None)
                    if task is None:
                        if not self._ended:
                            self._changed.wait(FRESH)
                        continue
                sha256, file = task
                found = None if file is None else _describe(describe, file, sha256)
                with self._changed:
                    self._described[sha256] = found
        except KintsugiError as error:
            self._problem = str(error)
        except Exception as error:
            log.exception("similar images are not shown")
            self._problem = f"{type(error).__name__}: {error}"

    def _refresh(self) -> None:
        """Read which images are good, and which defects have names."""
        latest = {
            each.sha256: each.verdict
            for each in self._answers.said_of_run(self._run.name)
            if each.queue != "restore" and each.verdict != "unsure"
        }
        answered = (self._run.number_of(sha256) for sha256, verdict in latest.items() if verdict == "good")
        good = sorted(number for number in answered if number is not None)
        kind: Literal["answered", "unflagged"] = "answered"
        if len(good) < FEWEST_GOOD:
            kind = "unflagged"
            bad = {sha256 for sha256, verdict in latest.items() if verdict != "good"}
            lowest = self._run.unflagged(MOST_GOOD + len(bad))
            good = [number for number in lowest if self._run.sha256(number) not in bad]
        named = [
            _Named(each.sha256, each.defect or "", each.run)
            for each in self._answers.named(self._run.model.name, MOST_NAMED)
        ]
        with self._changed:
            self._good, self._kind, self._named = good[:MOST_GOOD], kind, named
            if not good:
                self._problem = "the run has no good image to compare with"

    def _tasks(self) -> Iterator[tuple[str, ImageFile | None]]:
        """Yield what is to be described, the most urgent first."""
        yield from self._of_this_run([*reversed(self._wanted), *self._good[:ENOUGH_GOOD]])
        for each in self._named:
            if each.sha256 not in self._described:
                yield each.sha256, self._find(each)
        yield from self._of_this_run(self._good[ENOUGH_GOOD:])

    def _of_this_run(self, numbers: Sequence[int]) -> Iterator[tuple[str, ImageFile | None]]:
        for number in numbers:
            if (sha256 := self._run.sha256(number)) not in self._described:
                yield sha256, self._run.file(number)

    def _find(self, named: _Named) -> ImageFile | None:
        """Find the image of an answer, which may be of another run."""
        if named.run not in self._runs:
            try:
                self._runs[named.run] = ReviewedRun(Path(named.run))
            except (FolderError, OSError, ValueError):
                self._runs[named.run] = None
        run = self._runs[named.run]
        if run is None:
            return None
        number = run.number_of(named.sha256)
        return None if number is None else run.file(number)


def _describe(describe: Describe, file: ImageFile, sha256: str) -> Description | None:
    try:
        return describe(file, sha256)
    except Exception as error:  # noqa: BLE001 - one image must not end it: ONNX Runtime raises what it likes
        log.warning("%s cannot be compared with other images: %s", file.relative, one_line(error))
        return None


def find_hint(
    own: NDArray[np.floating[Any]] | None,
    named: list[tuple[str, NDArray[np.floating[Any]] | None]],
    good: list[NDArray[np.floating[Any]] | None],
) -> dict[str, Any] | None:
    """Return the name that the nearest named defects agree on; None where they do not, or are too few.

    Distances are Euclidean, each dimension in units of its spread over good images.

    Args:
        own: (F,), of the image at its most abnormal place.
        named: Name and vector (F,) of each defect that a person has named; those without a vector are left out.
        good: Vectors (F,) of good images.

    Returns:
        `name`, `alike` of `of` nearest defects that have it, and `share` of all named defects that have it, in [0, 1].
    """
    there = [(name, vector) for name, vector in named if vector is not None]
    normal = [vector for vector in good if vector is not None]
    names = Counter(name for name, _ in there)
    if own is None or not normal or len(there) < FEWEST_NAMED or len(names) < 2:
        return None
    centre, spread = measure_spread(np.stack(normal))
    codes = (np.stack([vector for _, vector in there]) - centre) / spread
    nearest, _ = rank_closest(codes, (own - centre) / spread, NEAREST)
    ((name, alike),) = Counter(there[at][0] for at in nearest.tolist()).most_common(1)
    if alike < AGREE:
        return None
    return {"name": name, "alike": alike, "of": len(nearest), "share": names[name] / len(there)}
