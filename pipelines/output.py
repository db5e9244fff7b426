"""The output folder: rows that appear shard by shard, survive a kill, and end in the same bytes.

`OUT/.kintsugi/` holds the work so far: one parquet file for each finished shard, under the digest of the model that
made it. A row counts as done while its file's size and time of change are the same; what is not done is work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.errors import FolderError, OutputError
from pipelines.images import ImageFile

RESULTS = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bit_depth", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("score", pa.float64()),
        ("bits_per_dim", pa.float64()),
        ("elbo", pa.float64()),
        ("rate", pa.float64()),
        ("distortion", pa.float64()),
        ("p_value", pa.float64()),
        ("is_anomaly", pa.bool_()),
        ("threshold", pa.float64()),
        ("note", pa.string()),
    ]
)
PICTURES = [("thumbnail", pa.binary()), ("heatmap", pa.binary())]
GALLERY = pa.schema([("path", pa.string()), ("score", pa.float64()), *PICTURES])
VERDICTS = ("model", "version", "p_value", "is_anomaly", "threshold")  # known at the end, not part of a shard
SHARD = pa.schema(
    [field for field in RESULTS if field.name not in VERDICTS]
    + [pa.field("size", pa.int64()), pa.field("mtime_ns", pa.int64())]
    + [pa.field(name, kind) for name, kind in PICTURES]
)
GALLERY_ROWS = 64

Row = dict[str, Any]


class OutputFolder:
    """An output folder held by this process alone."""

    def __init__(self, out: Path, *, work_key: str) -> None:
        """Describe a folder; `held` opens it.

        Args:
            out: The folder.
            work_key: Digest of what the rows depend on beside the image (the model): other rows do not count.
        """
        self.out = out
        self._private = out / ".kintsugi"
        self._shards = self._private / f"shards-{work_key[:16]}"

    @contextmanager
    def held(self, *, fresh: bool = False) -> Iterator[OutputFolder]:
        """Create the folder and lock it.

        Args:
            fresh: Forget earlier rows.

        Raises:
            OutputError: Another run holds it, or it holds something else.
            FolderError: It cannot be written.
        """
        try:
            if self.out.is_dir() and not self._private.is_dir() and any(self.out.iterdir()):
                msg = f"the output folder {self.out} holds something else; give an empty or a new folder"
                raise OutputError(msg)
            if fresh:
                shutil.rmtree(self._shards, ignore_errors=True)
            self._shards.mkdir(parents=True, exist_ok=True)
            lock = (self._private / "lock").open("w")
        except (FileExistsError, NotADirectoryError):
            msg = f"the output folder {self.out} is a file; give a folder"
            raise FolderError(msg) from None
        except OSError as error:
            msg = f"the output folder {self.out} cannot be written: {error.strerror}"
            raise FolderError(msg) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                msg = f"another run is writing to {self.out}; wait for it, or give another folder"
                raise OutputError(msg) from None
            for leftover in self._shards.glob("*.tmp"):
                leftover.unlink()
            yield self

    def map_path(self, relative: str) -> Path:
        """Where the heat map of an input file lies."""
        return self.out / "maps" / f"{relative}.png"

    def rows(self, *, pictures: bool = False) -> pa.Table:
        """All rows written so far, later shards first."""
        columns = None if pictures else [name for name in SHARD.names if name not in dict(PICTURES)]
        paths = sorted(self._shards.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        tables = [pq.read_table(path, columns=columns) for path in paths]
        return pa.concat_tables(tables) if tables else SHARD.empty_table().select(columns or SHARD.names)

    def done(self, files: Iterable[ImageFile], threshold: float | None) -> dict[str, float]:
        """Paths that need no work, with their scores: scored, unchanged, and with a heat map where one is due."""
        unchanged = {file.relative: (file.size, file.mtime_ns) for file in files}
        finished: dict[str, float] = {}
        for row in self.rows().to_pylist():
            path, score = row["path"], row["score"]
            if row["status"] != "ok" or unchanged.get(path) != (row["size"], row["mtime_ns"]):
                continue
            if threshold is not None and score > threshold and not self.map_path(path).is_file():
                continue
            finished.setdefault(path, score)
        return finished

    def write_shard(self, rows: Sequence[Row]) -> None:
        """Make a shard's rows appear at once."""
        name = hashlib.sha256("\n".join(f"{r['path']} {r['mtime_ns']}" for r in rows).encode()).hexdigest()[:24]
        table = pa.Table.from_pylist(list(rows), schema=SHARD)
        write_atomically(self._shards / f"{name}.parquet", lambda path: pq.write_table(table, path))

    def merge(self, files: Sequence[ImageFile]) -> list[Row]:
        """One row for each file, in the order of files: the newest one that counts."""
        wanted = {file.relative: (file.size, file.mtime_ns) for file in files}
        newest: dict[str, Row] = {}
        for row in self.rows().to_pylist():
            if wanted.get(row["path"]) == (row.pop("size"), row.pop("mtime_ns")):
                newest.setdefault(row["path"], row)
        return [newest[file.relative] for file in files if file.relative in newest]

    def write_results(self, rows: Sequence[Row]) -> None:
        """Write results.parquet and results.csv."""
        table = pa.Table.from_pylist(list(rows), schema=RESULTS)
        write_atomically(self.out / "results.parquet", lambda path: pq.write_table(table, path))
        write_atomically(self.out / "results.csv", lambda path: pa_csv.write_csv(table, path))

    def write_gallery(self, rows: Sequence[Row]) -> None:
        """Write the worst images' pictures, gathered from all shards."""
        worst = sorted((r for r in rows if r["status"] == "ok"), key=worst_first)[:GALLERY_ROWS]
        wanted = {row["path"]: row["score"] for row in worst}
        pictures: dict[str, Row] = {}
        for path in sorted(self._shards.glob("*.parquet")):
            for row in pq.read_table(path, columns=["path", "score", *dict(PICTURES)]).to_pylist():
                if row["thumbnail"] is not None and wanted.get(row["path"]) == row["score"]:
                    pictures.setdefault(row["path"], row)
        table = pa.Table.from_pylist([pictures[path] for path in wanted if path in pictures], schema=GALLERY)
        write_atomically(self._private / "gallery.parquet", lambda path: pq.write_table(table, path))

    def tidy(self, rows: Sequence[Row]) -> None:
        """Drop what no longer holds: heat maps of images that are not flagged any more, other models' shards."""
        due = {self.map_path(row["path"]) for row in rows if row["is_anomaly"]}
        for path in (self.out / "maps").rglob("*.png"):
            if path not in due:
                path.unlink()
        for folder in sorted((self.out / "maps").rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only empty ones go
        for other in self._private.glob("shards-*"):
            if other != self._shards:
                shutil.rmtree(other)

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file into the folder."""
        write_json(self.out / name, document)


def worst_first(row: Row) -> tuple[float, str]:
    """Sort key: highest score first, then by path."""
    return (-row["score"], row["path"])


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON atomically; not-a-number has no place in it."""
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Any) -> None:  # noqa: ANN401 - any callable that takes a path
    """Let `write(temporary_path)` make a file, then move it into place: nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
