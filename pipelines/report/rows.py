"""results.parquet as the page needs it: counts over every row, and the worst rows in full.

The file is read twice in batches: once for score and verdict of every row, once to pick out the rows that are shown.
Memory grows by tens of bytes a row, not by the text in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.base.parquet import open_parquet
from pipelines.errors import FolderError

NORMAL, ABNORMAL, FAILED, UNJUDGED = VERDICTS = range(4)
SHOWN_FAILURES = 500
_NEEDED = ("path", "status", "score")
_FACTS = ("model", "version", "threshold")
MEASURES = ("p_value", "bits_per_dim", "elbo", "rate", "distortion")
FIGURES = ("psnr", "ssim", "dice", "iou", "input_psnr", "input_ssim")  # where there are images to compare with
_SHOWN = (
    *("path", "score", "width", "height", "error", "note", "label", "label_probability"),
    *("output", "mean_scale", *FIGURES),
    *MEASURES,
)
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be scored, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What results.parquet holds.

    Attributes:
        verdicts: one code a file, in the file's order (NORMAL, ABNORMAL, FAILED, UNJUDGED).
        scores: one a file; NaN where there is none.
        worst: the rows to show: falling score, then those without a score, ties by path.
        worst_verdicts: the codes of the rows of `worst`.
        failures: the first failed files.
        model: name of the model, as the rows say.
        version: its version, as the rows say.
        threshold: the score above which a file is abnormal; None without calibration, or where groups have their own.
        labels: images by class and whether they were rejected, where the model tells classes.
    """

    verdicts: NDArray[np.uint8]
    scores: NDArray[np.float64]
    worst: pa.Table
    worst_verdicts: NDArray[np.uint8]
    failures: tuple[Failure, ...]
    model: str | None
    version: str | None
    threshold: float | None
    labels: Counter[tuple[str, bool]]

    @property
    def total(self) -> int:
        """Files in results.parquet."""
        return len(self.verdicts)

    def count(self, verdict: int) -> int:
        """Files with that verdict code."""
        return int(np.count_nonzero(self.verdicts == verdict))

    @property
    def known_scores(self) -> NDArray[np.float64]:
        """The scores that are there, in the file's order."""
        return self.scores[np.isfinite(self.scores)]

    @property
    def has_threshold(self) -> bool:
        """Whether images were judged by a threshold that is known, so that it can be moved."""
        judged = self.count(NORMAL) + self.count(ABNORMAL)
        return self.threshold is not None and judged > 0 and len(self.known_scores) > 0

    @property
    def is_truncated(self) -> bool:
        """Return whether some rows are not shown."""
        return len(self.worst) < self.total


def read_rows(path: Path, *, limit: int) -> Rows:
    """Read results.parquet, keeping at most `limit` rows to show: the worst ones.

    Raises:
        FolderError: the file is missing, is not a results file, or has no rows; the message gives the next step.
    """
    try:
        with open_parquet(path) as file:
            _check(file, path)
            return _read(file, limit)
    except FileNotFoundError as error:
        raise FolderError(
            f"{path.parent} holds no {path.name}, so there is nothing to report on. "
            f"Run `kintsugi score` or `kintsugi restore` with --out {path.parent} first."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise FolderError(f"{path} cannot be read ({error}). Start the run again: it rewrites the file.") from error


def _check(file: pq.ParquetFile, path: Path) -> None:
    missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
    if missing:
        raise FolderError(f"{path} has no column {', '.join(missing)}: it was not written by kintsugi.")
    if file.metadata.num_rows == 0:
        raise FolderError(f"{path} has no rows, so there is nothing to report on. Start the run again.")


def _read(file: pq.ParquetFile, limit: int) -> Rows:
    scores, verdicts, facts, labels = _read_verdicts(file)
    keep = _choose_worst(scores, verdicts, limit)
    batches: list[pa.Table] = []
    failures: list[Failure] = []
    start = 0
    shown = [name for name in _SHOWN if name in file.schema_arrow.names]
    for batch in file.iter_batches(_BATCH, columns=shown):
        end = start + len(batch)
        batches.append(pa.Table.from_batches([batch.filter(pa.array(keep[start:end]))]))
        if len(failures) < SHOWN_FAILURES:
            failures += _list_failures(batch.filter(pa.array(verdicts[start:end] == FAILED)))
        start = end
    # The sort key is negated, so that NaN (no score) comes last; the file is in path order and the sort is stable.
    order = np.argsort(-scores[keep], kind="stable")
    return Rows(
        verdicts=verdicts,
        scores=scores,
        worst=pa.concat_tables(batches).take(pa.array(order)),
        worst_verdicts=verdicts[keep][order],
        failures=tuple(failures[:SHOWN_FAILURES]),
        model=facts["model"],
        version=facts["version"],
        threshold=float(facts["threshold"]) if facts["threshold"] is not None else None,
        labels=labels,
    )


def _read_verdicts(
    file: pq.ParquetFile,
) -> tuple[NDArray[np.float64], NDArray[np.uint8], dict[str, str | None], Counter[tuple[str, bool]]]:
    """Score and verdict of every row, the first value of each column that should say the same on all rows, classes."""
    scores = np.empty(file.metadata.num_rows, np.float64)
    verdicts = np.empty(file.metadata.num_rows, np.uint8)
    facts: dict[str, str | None] = dict.fromkeys(_FACTS)
    wanted = [
        name for name in (*_NEEDED[1:], "is_anomaly", "mean_scale", "label", *_FACTS) if name in file.schema_arrow.names
    ]
    thresholds: set[float] = set()
    labels: Counter[tuple[str, bool]] = Counter()
    start = 0
    for batch in file.iter_batches(_BATCH, columns=wanted):
        end = start + len(batch)
        failed = take_column(batch, "status", pa.string()).to_numpy(zero_copy_only=False) != "ok"
        found = take_floats(batch, "score")
        found = np.where(
            np.isfinite(found), found, take_floats(batch, "mean_scale")
        )  # what was mended is ranked by that
        scores[start:end] = np.where(failed, np.nan, found)
        scores[start:end][~np.isfinite(scores[start:end])] = np.nan
        flagged = take_column(batch, "is_anomaly", pa.bool_())
        codes = np.where(flagged.fill_null(False).to_numpy(zero_copy_only=False), ABNORMAL, NORMAL)
        codes = np.where(flagged.is_null().to_numpy(zero_copy_only=False), UNJUDGED, codes)
        verdicts[start:end] = np.where(failed, FAILED, codes)
        told = zip(take_texts(batch, "label"), codes == ABNORMAL, strict=True)
        labels.update((name, bool(rejected)) for name, rejected in told if name is not None)
        for name in _FACTS:
            if facts[name] is None and name in wanted:
                known = batch.column(name).drop_null()
                facts[name] = str(known[0].as_py()) if len(known) else None
        thresholds |= set(
            np.unique(take_floats(batch, "threshold")[~np.isnan(take_floats(batch, "threshold"))]).tolist()
        )
        start = end
    if len(thresholds) > 1:
        facts["threshold"] = None
    return scores, verdicts, facts, labels


def _choose_worst(scores: NDArray[np.float64], verdicts: NDArray[np.uint8], limit: int) -> NDArray[np.bool_]:
    """Mask of at most `limit` rows: failed files (a tenth of the places at most), then the highest scores."""
    if len(scores) <= limit:
        return np.ones(len(scores), np.bool_)
    keep = np.zeros(len(scores), np.bool_)
    keep[np.flatnonzero(verdicts == FAILED)[: limit // 10]] = True
    places = limit - int(keep.sum())
    known = np.flatnonzero(np.isfinite(scores))
    if places < len(known):
        cut = np.partition(scores[known], len(known) - places)[len(known) - places]
        above = known[scores[known] > cut]
        ties = known[scores[known] == cut][: places - len(above)]
        known = np.concatenate([above, ties])
    keep[known] = True
    return keep


def _list_failures(batch: pa.RecordBatch) -> list[Failure]:
    paths = batch.column("path").to_pylist()
    reasons = take_texts(batch, "error")
    return [Failure(path, reason or "no reason was recorded") for path, reason in zip(paths, reasons, strict=True)]


def take_column(rows: pa.RecordBatch | pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column as one array of the type asked for; nulls where the file has no such column."""
    if name not in rows.schema.names:
        return pa.nulls(len(rows), kind)
    values = rows.column(name)
    return (values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values).cast(kind)


def take_floats(rows: pa.RecordBatch | pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column of numbers; NaN where there is none."""
    values: NDArray[np.float64] = take_column(rows, name, pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)


def take_texts(rows: pa.RecordBatch | pa.Table, name: str) -> list[str | None]:
    """Return a column of text; None where there is none."""
    texts: list[str | None] = take_column(rows, name, pa.string()).to_pylist()
    return texts
