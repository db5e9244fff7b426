"""A finished run as people review it: its images in an order worth asking about, and where their pictures lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base.files import folds_names, map_name
from pipelines.base.parquet import open_parquet
from pipelines.errors import FolderError, ImageError
from pipelines.images import OUTPUT_MARKER, ImageFile, list_images, read_image
from pipelines.images.drawing import thumbnail
from pipelines.report.folder import RESULTS, RUN, Run, read_record
from pipelines.review.answers import Answer, Queue, Said
from pipelines.review.audit import Audit, Stratum, draw_audit
from pipelines.settings import settings

Given = TypeVar("Given", Answer, Said)
LONGEST = 1600  # pixels along a side of a picture that is sent to a browser
SMALL = 400  # of a picture to compare with
AGAIN_AFTER = 10  # questions of an audit, after which an image that was called defective is asked about once more
_COLUMNS = ("path", "sha256", "status", "score", "is_anomaly", "threshold", "mean_scale", "output")


def newest_run(folder: Path) -> Path:
    """Return an output folder: the given one, or that of the newest finished run in it.

    Raises:
        FolderError: It is none, and holds none.
    """
    if (folder / RUN).is_file():
        return folder
    found = [(path.parent, read_record(path, Run)) for path in folder.glob(f"*/{RUN}")]
    runs = [(record.started or "", out) for out, record in found if record is not None and record.finished is not None]
    if not runs:
        raise FolderError(f"{folder} is no output folder, and holds none of a finished run: run `kintsugi score` first")
    return max(runs)[1]


@dataclass(frozen=True, slots=True)
class ReviewedImage:
    """One image of a run.

    Attributes:
        number: Of the image in its run, which pages and pictures call it by.
        path: Relative to the run's folder.
        sha256: Of its file.
        score: None of a run that restores.
        flagged: Whether it was found abnormal; None without a verdict.
        mean_scale: Mean error bar, of a run that restores.
        mapped: Whether there is a heat map of it.
    """

    number: int
    path: str
    sha256: str
    score: float | None
    flagged: bool | None
    mean_scale: float | None
    mapped: bool


class ReviewedRun:
    """The output folder of a run of `score` or `restore`."""

    def __init__(self, out: Path) -> None:
        """Read an output folder.

        Raises:
            FolderError: It is none of a finished run, or the run's images are gone.
        """
        record = read_record(out / RUN, Run)
        if record is None or record.finished is None or record.folder is None:
            raise FolderError(
                f"{out} is not the output folder of a finished run: run `kintsugi score` or `restore` first"
            )
        self.out, self.folder, self.verb, self.model = out, Path(record.folder), record.verb, record.model
        self.started = record.started or ""
        with open_parquet(out / RESULTS) as file:
            self._columns: Mapping[str, list[Any]] = file.read(columns=list(_COLUMNS)).to_pydict()
        first: dict[str, int] = {}  # copies are asked about once, and count once
        for number, (status, sha256) in enumerate(zip(self._columns["status"], self._columns["sha256"], strict=True)):
            if status == "ok":
                first.setdefault(sha256, number)
        self._first: Mapping[str, int] = first
        self.numbers = np.array(list(first.values()), dtype=np.int64)
        if not len(self.numbers):
            raise FolderError(f"{out} has no image to review: every file of the run failed")

    @property
    def name(self) -> str:
        """The run, as answers name it."""
        return str(self.out.resolve())

    @property
    def queues(self) -> tuple[Queue, ...]:
        """What may be asked about this run."""
        return ("restore",) if self.verb == "restore" else ("teach", "audit")

    def image(self, number: int) -> ReviewedImage:
        """Return an image by its number.

        Raises:
            KeyError: There is none, or its file failed.
        """
        if not 0 <= number < len(self._columns["path"]) or self._columns["status"][number] != "ok":
            raise KeyError(number)
        value = {name: column[number] for name, column in self._columns.items()}
        return ReviewedImage(
            number, value["path"], value["sha256"], value["score"], value["is_anomaly"], value["mean_scale"],
            mapped=self._find_map(value["path"]) is not None,
        )  # fmt: skip

    def number_of(self, sha256: str) -> int | None:
        """Return the number of the image with a digest, the first one of copies; None: the run has none."""
        return self._first.get(sha256)

    def sha256(self, number: int) -> str:
        """Return the digest of an image's file, as the run found it."""
        return str(self._columns["sha256"][number])

    def file(self, number: int) -> ImageFile | None:
        """Return an image's file; None where it is gone from where the run found it."""
        relative = str(self._columns["path"][number])
        path = self._inside(self.folder, relative)
        if path is None:
            return self._listed.get(relative)
        facts = path.stat()
        return ImageFile(path, relative, facts.st_size, facts.st_mtime_ns)

    def order(self, queue: Queue) -> NDArray[np.int64]:
        """Return the numbers of a queue's images, the first to be asked about first, (n,)."""
        if queue == "teach":
            return self._order_to_teach
        return self._order_of_audit if queue == "audit" else self._order_restored

    @cached_property
    def audit(self) -> Audit:
        """The audit of this run: it depends on the run alone, and not on what anybody has answered."""
        seed = int(hashlib.sha256(f"{self.model.sha256} {self.folder} {self.started}".encode()).hexdigest()[:12], 16)
        return draw_audit(self._floats("score"), self._flags(), seed)

    def of_this_run(self, answers: Sequence[Given]) -> list[Given]:
        """Return the answers that belong to this run: an output folder that was scored again has another audit."""
        started = _moment(self.started)
        return [each for each in answers if each.queue != "audit" or _moment(each.at) >= started]

    def count_strata(self, answers: Sequence[Given]) -> tuple[Stratum, ...]:
        """Count what audit answers say of each stratum; of several about an image the last one counts."""
        verdicts = {answer.sha256: answer.verdict for answer in self.of_this_run(answers) if answer.queue == "audit"}
        told = [(self._first[key], verdict) for key, verdict in verdicts.items() if key in self._first]
        strata, size = self.audit.stratum, len(self.audit.strata)

        def count(*counted: str) -> list[int]:
            numbers = np.array([number for number, verdict in told if verdict in counted], np.int64)
            found: list[int] = np.bincount(strata[np.searchsorted(self.numbers, numbers)], minlength=size).tolist()
            return found

        return tuple(
            Stratum(each.flagged, each.images, answered, bad)
            for each, answered, bad in zip(self.audit.strata, count("good", "defect"), count("defect"), strict=True)
        )

    def stratum_of(self, number: int) -> int:
        """Return the stratum of the audit that an image is in."""
        return int(self.audit.stratum[int(np.searchsorted(self.numbers, number))])

    def pending(self, queue: Queue, answers: Sequence[Given]) -> Iterator[tuple[int, bool]]:
        """Yield what is left to ask in a queue: an image's number, and whether it is asked about once more.

        In an audit, each image that was called defective comes back once: where defects are rare, a few mistakes would
        make up most of them.
        """
        given: dict[str, list[Given]] = {}
        for answer in self.of_this_run(answers):
            if answer.queue == queue:
                given.setdefault(answer.sha256, []).append(answer)
        again: list[int] = []
        if queue == "audit":
            sent_back = [sha256 for sha256, own in given.items() if [each.verdict for each in own] == ["defect"]]
            found = [self._first[sha256] for sha256 in sent_back if sha256 in self._first]
            again = sorted(found, key=lambda number: self._turn_in_audit[number])
        asked = 0
        for number in map(int, self.order(queue)):  # lazily: a page takes a few of perhaps a million
            if self._columns["sha256"][number] in given:
                continue
            yield number, False
            asked += 1
            if again and asked % AGAIN_AFTER == 0:
                yield again.pop(0), True
        yield from ((number, True) for number in again)

    def picture(self, number: int, kind: str) -> tuple[bytes, str] | None:
        """Return a picture of an image and its media type; None where there is no such picture.

        Args:
            number: Of the image.
            kind: "image", "small" (the same, for comparison), "map" (its heat map) or "restored".

        Raises:
            KeyError: There is no such image.
            ImageError: It cannot be read any more.
        """
        image = self.image(number)
        if kind == "map":
            path = self._find_map(image.path)
            return None if path is None else (path.read_bytes(), "image/png")
        restored = self._columns["output"][number]
        path = self._inside(self.out, restored) if kind == "restored" and restored else None
        if kind in ("image", "small"):
            file = self.file(number)
            if file is None:
                raise ImageError("is no longer where the run found it")
            path = file.path
        if path is None:
            return None
        shown = read_image(path, max_pixels=settings().max_pixels)
        return thumbnail(shown.pixels, SMALL if kind == "small" else LONGEST), "image/jpeg"

    def unflagged(self, most: int) -> list[int]:
        """Return the numbers of images that were not flagged, the lowest scores first, `most` of them at most."""
        scores, flags = self._floats("score"), self._flags()
        order = np.argsort(scores, kind="stable")
        fit = ~flags[order] & np.isfinite(scores[order])
        return [int(number) for number in self.numbers[order][fit][:most]]

    @cached_property
    def _order_to_teach(self) -> NDArray[np.int64]:
        """Nearest to the threshold first, above and below it in turns: there an answer changes most."""
        scores, flags = self._floats("score"), self._flags()
        threshold = np.array([self._columns["threshold"][number] for number in self.numbers], float)
        distance = np.abs(scores - np.where(np.isfinite(threshold), threshold, np.nanmax(scores)))
        place = np.empty(len(scores))
        for side in (flags, ~flags):
            place[side] = np.argsort(np.argsort(distance[side], kind="stable"), kind="stable")
        return self.numbers[np.lexsort((~flags, place))]

    @cached_property
    def _order_of_audit(self) -> NDArray[np.int64]:
        return self.numbers[self.audit.order]

    @cached_property
    def _turn_in_audit(self) -> NDArray[np.int64]:
        """Return when the audit asks about each image, by the image's number."""
        turn = np.zeros(len(self._columns["path"]), np.int64)
        turn[self._order_of_audit] = np.arange(len(self._order_of_audit))
        return turn

    @cached_property
    def _order_restored(self) -> NDArray[np.int64]:
        """The least sure first."""
        return self.numbers[np.argsort(-self._floats("mean_scale"), kind="stable")]

    @cached_property
    def _listed(self) -> dict[str, ImageFile]:
        """Files by the names that results have for them, of which some are not those on the disk."""
        return {file.relative: file for file in list_images(self.folder).files}

    def _find_map(self, path: str) -> Path | None:
        names = (map_name(path), map_name(path, folds=True))
        return self._inside(self.out, names[folds_names(self.out, OUTPUT_MARKER)])

    def _floats(self, name: str) -> NDArray[np.float64]:
        values = np.array([self._columns[name][number] for number in self.numbers], float)
        return np.where(np.isnan(values), -np.inf, values)

    def _flags(self) -> NDArray[np.bool_]:
        return np.array([bool(self._columns["is_anomaly"][number]) for number in self.numbers])

    @staticmethod
    def _inside(folder: Path, relative: str) -> Path | None:
        """Return a file below a folder; None where it is not there, or a name leads out of the folder."""
        if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
            return None
        try:
            path = folder / relative
            return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
        except (OSError, ValueError):  # a name that no file system has
            return None


def _moment(text: str) -> datetime:
    """A time in ISO 8601; of a file that says none, long ago."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
