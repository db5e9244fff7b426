"""The finished runs below a folder: a summary of each, kept in a small file, so that only what is new is read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipelines.base.parquet import open_parquet
from pipelines.errors import FolderError
from pipelines.images import OUTPUT_MARKER
from pipelines.report.folder import RESULTS, RUN, CalibrationFacts, DriftFacts, Record, Run, read_record
from pipelines.report.rows import take_floats

KEPT = ".history.json"
FORMAT = 2  # another one when summaries must be made again
QUANTILES = (0.5, 0.9, 0.99)
_MEANS = ("mean_scale", "psnr", "dice")
_BATCH = 65_536
_MOST_FILES = 10**15
_LARGEST = 1e100  # figures beyond it are damage, and charts could not compute with them
_TIMES = tuple(datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2020, 2200))  # others are of a wrong clock

Stamp = tuple[int, int, int, int]  # size and time of run.json, and of results.parquet


class PastRun(Record):
    """What pages over time show of a run. What it has not is None."""

    folder: str  # below the folder of all runs, percent-encoded as a URL has it
    model: str
    version: str
    when: float  # seconds since 1970
    ok: int = Field(ge=0, le=_MOST_FILES)
    failed: int = Field(ge=0, le=_MOST_FILES)
    flagged: int | None = None  # None: there were no verdicts
    promised: float | None = None  # false-alarm rate that is proved
    asked: float | None = None  # false-alarm rate that is not proved
    threshold: float | None = None
    by_folder: bool = False  # images were judged against their folder
    drift: DriftFacts | None = None
    quantiles: tuple[float, float, float] | None = None  # of the scores: QUANTILES
    error_bar: float | None = None  # mean over the images, as a share of the range of values
    labels: bool = False  # pixels were labelled: error bars are of probabilities
    psnr: float | None = None  # dB
    dice: float | None = None
    images_per_second: float | None = None
    alarms: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        """Files that the run found."""
        return self.ok + self.failed

    @property
    def rate(self) -> float | None:
        """Share of the images that were flagged."""
        return self.flagged / self.ok if self.flagged is not None and self.ok else None

    @property
    def moment(self) -> str:
        """When it was started, as ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.when, UTC).isoformat()

    @property
    def folder_name(self) -> str:
        """The folder as the file system has it."""
        return os.fsdecode(unquote_to_bytes(self.folder))


class KeptRun(Record):
    """A summary, and what the files looked like that it was made of."""

    stamp: Stamp
    run: PastRun


class Kept(Record):
    """The file beside the pages.

    Attributes:
        pages: Pages that were written: one without runs is taken away again.
        runs: Summaries by folder.
    """

    format: int = FORMAT
    pages: tuple[str, ...] = ()
    runs: dict[str, KeptRun] = Field(default_factory=dict)


class _Calibration(CalibrationFacts):
    options: dict[str, float] = Field(default_factory=dict)


class _Finished(Run):
    calibration: _Calibration | None = None
    drift: DriftFacts | None = None
    alarms: Any = None


def read_kept(out: Path) -> Kept:
    """Return what an earlier call kept; nothing where there is none, or where it is of no use any more."""
    try:
        kept = Kept.model_validate(json.loads((out / KEPT).read_bytes()))
    except (OSError, ValueError, RecursionError):  # pydantic's error is a ValueError
        return Kept()
    return kept if kept.format == FORMAT else Kept()


def find_runs(out: Path, kept: Mapping[str, KeptRun]) -> tuple[dict[str, KeptRun], Counter[str]]:
    """Look at every folder directly below one; only runs that are new or have changed are read, one at a time.

    Args:
        out: The folder of all runs.
        kept: Summaries of an earlier call, by folder.

    Returns:
        Summaries of the finished runs by folder, and counts of the others: unfinished, damaged, foreign.

    Raises:
        OSError: The folder cannot be listed.
    """
    runs: dict[str, KeptRun] = {}
    unlisted: Counter[str] = Counter()
    for name in sorted(_list_folders(out)):
        key = quote(os.fsencode(name), safe="")
        try:
            if not (out / name / RUN).is_file():
                ours = (out / name / OUTPUT_MARKER).is_dir()
                unlisted["unfinished" if ours else "foreign"] += 1
                continue
            stamp = _take_stamp(out / name)
            before = kept.get(key)
            run = before.run if before and before.stamp == stamp else _read(out / name, key)
        except (FolderError, OSError, ValueError, OverflowError, RecursionError, pa.ArrowException):
            unlisted["damaged"] += 1
            continue
        if run is None:
            unlisted["unfinished"] += 1
        else:
            runs[key] = KeptRun(stamp=stamp, run=run)
    return runs, unlisted


def _list_folders(out: Path) -> Iterator[str]:
    with os.scandir(out) as entries:
        for entry in entries:
            # pathlib would raise where the system refuses to answer: one link would stop the page of all.
            if not entry.name.startswith(".") and os.path.isdir(entry.path):  # noqa: PTH112
                yield entry.name


def _take_stamp(folder: Path) -> Stamp:
    """Taken before the files are read: one that changes meanwhile is read again the next time."""
    run = (folder / RUN).stat()
    try:
        rows = (folder / RESULTS).stat()
    except FileNotFoundError:
        return run.st_size, run.st_mtime_ns, 0, 0
    return run.st_size, run.st_mtime_ns, rows.st_size, rows.st_mtime_ns


def _read(folder: Path, key: str) -> PastRun | None:
    """Return the summary of a run; None where it has not finished.

    Raises:
        FolderError: A file is damaged, or its figures contradict each other.
        OSError: A file cannot be read.
        pyarrow.ArrowException: results.parquet is damaged.
    """
    run = read_record(folder / RUN, _Finished)
    if run is None or run.finished is None:
        return None
    ok, failed, judged = run.counts.ok, run.counts.failed, run.calibration
    flagged = run.counts.flagged if judged and run.verb == "score" else None
    if run.model.name is None or ok is None or failed is None or not 0 <= (flagged or 0) <= ok:
        raise FolderError(f"{folder / RUN} lacks the model's name or its counts")
    sha256, version = run.model.sha256, run.model.version
    alarms = run.alarms if isinstance(run.alarms, list) else []
    # A share of false discoveries says nothing of the share that is flagged; nor do sub-folders not calibrated on.
    rate = _keep_finite(judged.false_alarms) if judged and "false_discoveries" not in judged.options else None
    if judged and judged.grouped and 0 < judged.grouped.unpromised == ok:
        rate = None
    return PastRun(
        folder=key,
        model=run.model.name,
        version=str(version) if version is not None else (sha256 or "unknown")[:8],
        when=_parse_time(run.started or run.finished),
        ok=ok,
        failed=failed,
        flagged=flagged,
        promised=rate if judged and judged.is_proved else None,
        asked=rate if judged and judged.holds and not judged.is_proved else None,
        by_folder=run.against is not None and run.against.used == "folder",
        threshold=_keep_finite(judged.threshold) if judged else None,
        drift=run.drift,
        labels=isinstance(run.model.metadata.get("classes"), list),
        images_per_second=_keep_finite(run.timings.get("images_per_second")),
        alarms=tuple(text for text in alarms if isinstance(text, str)),
        **_summarise_rows(folder / RESULTS),
    )


def _summarise_rows(path: Path) -> dict[str, Any]:
    """Return quantiles and means over the rows: of one run's scores, 8 bytes a row, everything is in memory at once."""
    sums, counts, scores = dict.fromkeys(_MEANS, 0.0), dict.fromkeys(_MEANS, 0), list[Any]()
    with open_parquet(path) as file:
        there = [name for name in ("score", *_MEANS) if name in file.schema_arrow.names]
        if not there:
            raise FolderError(f"{path} has none of the columns of results")
        for batch in file.iter_batches(_BATCH, columns=there):
            for name in there:
                values = take_floats(batch, name)
                values = values[np.abs(values) < _LARGEST]
                if name == "score":
                    scores.append(values)
                else:
                    sums[name] += float(values.sum())
                    counts[name] += len(values)
    every = np.concatenate(scores) if scores else np.empty(0)
    means = {name: sums[name] / counts[name] if counts[name] else None for name in _MEANS}
    return {
        "quantiles": tuple(np.quantile(every, QUANTILES).tolist()) if len(every) else None,
        "error_bar": means["mean_scale"],
        "psnr": means["psnr"],
        "dice": means["dice"],
    }


def _parse_time(text: str) -> float:
    when = datetime.fromisoformat(text)
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not _TIMES[0] <= seconds < _TIMES[1]:
        msg = f"{text} is no time of a run"
        raise ValueError(msg)
    return seconds


def _keep_finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < _LARGEST else None
