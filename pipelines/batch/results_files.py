"""results.parquet and results.csv, written as the rows come, and what is counted of them meanwhile."""

from __future__ import annotations

import codecs
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.base.files import appearing
from pipelines.base.parquet import write_parquet
from pipelines.base.safe_text import for_spreadsheets
from pipelines.batch.schema import FIGURES_OF_REFERENCE, RESULTS, Row
from pipelines.batch.shard_store import worst_of

COUNTED = ("ok", "failed", "flagged")  # of rows that were scored, in run.json


class Results:
    """The rows of a run, by path.

    Attributes:
        counts: Rows by what became of them: "ok", "failed"; "flagged", "grouped" (judged by a threshold of their own
            group), "unpromised" (judged, and the rate is not meant for them), "flagged_calibration" and
            "flagged_folder" (by either verdict, where there are both) are among the former.
        worst: The rows of the highest rank, worst first.
    """

    def __init__(self, parquet: pq.ParquetWriter, csv: pa_csv.CSVWriter) -> None:
        """Begin with no rows; `open_results` makes one."""
        self._parquet, self._csv = parquet, csv
        self.counts: Counter[str] = Counter()
        self.worst: list[Row] = []
        self._sums: Counter[str] = Counter()
        self._known: Counter[str] = Counter()

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows, which come after those before them."""
        table = pa.Table.from_pylist(list(rows), schema=RESULTS)
        self._parquet.write_table(table)
        self._csv.write_table(for_spreadsheets(table))
        for row in rows:
            self.counts[row["status"]] += 1
            self.counts["flagged"] += bool(row["is_anomaly"])
            self.counts["grouped"] += row["group"] is not None
            for reference in ("calibration", "folder"):
                self.counts[f"flagged_{reference}"] += bool(row[f"{reference}_is_anomaly"])
            self.counts["unpromised"] += row["is_anomaly"] is not None and row["p_value"] is None
            for name in FIGURES_OF_REFERENCE:
                if row[name] is not None:
                    self._sums[name] += row[name]
                    self._known[name] += 1
        self.worst = worst_of([*self.worst, *(row for row in rows if row["status"] == "ok")])

    def mean(self, name: str) -> float | None:
        """Of a figure over the images that have it; None where none has."""
        return self._sums[name] / self._known[name] if self._known[name] else None


@contextlib.contextmanager
def open_results(out: Path) -> Iterator[Results]:
    """Write both files; they appear when the block ends.

    The text for spreadsheets has a byte-order mark: without it Excel reads names in the encoding of the system's
    language.
    """
    with contextlib.ExitStack() as stack:
        parquet, text = (stack.enter_context(appearing(out / name)) for name in ("results.parquet", "results.csv"))
        file = stack.enter_context(text.open("wb"))
        file.write(codecs.BOM_UTF8)
        lines = stack.enter_context(pa_csv.CSVWriter(file, RESULTS))
        yield Results(stack.enter_context(write_parquet(parquet, RESULTS)), lines)
