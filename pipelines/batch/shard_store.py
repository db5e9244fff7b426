"""Rows of a run so far: parquet files that appear whole, one for each stretch of work, under what made them.

A row counts while its file's size and time of change are the same; of several that count, the newest does. Nothing here
holds all rows at once: whoever needs them is given blocks of files, in order, with the rows that there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.base.files import write_atomically
from pipelines.base.parquet import open_parquet, write_table
from pipelines.batch.schema import FIGURES_OF_REFERENCE, GALLERY, PICTURES, SHARD, Row, rank_of, read_shard, worst_first
from pipelines.errors import OutputError
from pipelines.images import FileList, ImageFile

log = logging.getLogger(__name__)
GALLERY_ROWS = 64
PLAIN = tuple(name for name in SHARD.names if name not in dict(PICTURES))
_OF_FILES = ("path", "size", "mtime_ns")
_OF_WORK = ("path", "status", "score", "mean_scale", "output", "samples", "pictured")
_FIRST, _LAST = b"first", b"last"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some files in order, and the rows of those that have one.

    Attributes:
        start: Index of the first of the files among all.
        files: The files.
        places: Indices of those with a row, counted from `start`; ascending.
        rows: As many rows.
    """

    start: int
    files: FileList
    places: NDArray[np.int64]
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class _Shard:
    path: Path
    first: str  # name of a file; rows are in the order of names
    last: str
    written: int  # nanoseconds


class RowStore:
    """The rows under one folder."""

    def __init__(self, folder: Path) -> None:
        """Name the folder, which need not be there."""
        self.folder = folder

    def clear(self) -> None:
        """Forget all rows."""
        for path in self.folder.glob("*.parquet"):
            path.unlink()

    def write(self, rows: Sequence[Row]) -> None:
        """Make rows appear at once, with the pictures of the worst of them: no others can be the worst of all."""
        rows = sorted(rows, key=lambda row: str(row["path"]))
        name = hashlib.sha256("\n".join(f"{r['path']} {r['mtime_ns']}" for r in rows).encode()).hexdigest()[:24]
        pictured = sorted((row for row in rows if row["thumbnail"] is not None), key=worst_first)
        for row in pictured[GALLERY_ROWS:]:
            row.update(dict.fromkeys(name for name, _ in PICTURES))
        rows = [row | {"pictured": row["thumbnail"] is not None} for row in rows]
        ends = {_FIRST: rows[0]["path"].encode(), _LAST: rows[-1]["path"].encode()}
        table = pa.Table.from_pylist(rows, schema=SHARD.with_metadata(ends))
        path = self.folder / f"{name}.parquet"
        write_atomically(path, lambda temporary: write_table(table, temporary, write_page_checksum=True))

    def forget_damaged(self) -> None:
        """Delete files that cannot be read, with a warning: their images are done again."""
        for path in list(self.folder.glob("*.parquet")):
            try:
                _shard(path)
                _read(path, SHARD.names)
            except OutputError:
                log.warning("%s was damaged and is deleted: its images are processed again", path)

    def files(self) -> FileList:
        """The files that there are rows of, as they were when these were written."""
        paths, sizes, times = set[str](), dict[str, int](), dict[str, int]()
        for shard in sorted(self._shards(), key=lambda shard: -shard.written):
            for row in _read(shard.path, _OF_FILES).to_pylist():
                if (path := row["path"]) not in paths:
                    paths.add(path)
                    sizes[path], times[path] = row["size"], row["mtime_ns"]
        return FileList.of(Path(), (ImageFile(Path(path), path, sizes[path], times[path]) for path in sorted(paths)))

    def blocks(self, files: FileList, names: Sequence[str] = PLAIN) -> Iterator[Block]:
        """Go through files, with some columns of their rows; `pictured` says whether any row that counts has pictures.

        Args:
            files: What is asked for.
            names: Of the columns.
        """
        read = tuple(dict.fromkeys((*names, *_OF_FILES)))
        coming = sorted(self._shards(), key=lambda shard: shard.first, reverse=True)
        opened, start = list[tuple[_Shard, pa.Table]](), 0
        for block in files.blocks():
            first, last = block.relatives[0].as_py(), block.relatives[-1].as_py()
            while coming and coming[-1].first <= last:
                shard = coming.pop()
                if shard.last >= first:
                    opened.append((shard, _read(shard.path, read)))
            opened = [(shard, table) for shard, table in opened if shard.last >= first]
            opened.sort(key=lambda pair: -pair[0].written)
            places, rows = _match_rows(block, [table for _, table in opened])
            yield Block(start, block, places, rows.select(list(names)))
            start += len(block)

    def tables(self, files: FileList, names: Sequence[str]) -> Iterator[pa.Table]:
        """Go through the rows of files, some columns of them; files without a row are passed over."""
        return (block.rows for block in self.blocks(files, names))

    def find_left(self, files: FileList, is_done: Callable[[Row], bool]) -> tuple[NDArray[np.int64], list[float]]:
        """Find what is still to be done: not finished, changed, or without the pictures that are due.

        Args:
            files: What is asked for.
            is_done: Returns whether what a finished row names is still there.

        Returns:
            Indices of files, ascending, and the ranks of the worst that are done.
        """
        done = np.zeros(len(files), bool)
        worst: list[tuple[float, str, int, bool]] = []
        for block in self.blocks(files, _OF_WORK):
            for place, row in zip(block.places.tolist(), block.rows.to_pylist(), strict=True):
                if row["status"] == "ok" and is_done(row):
                    done[block.start + place] = True
                    worst.append((*worst_first(row), block.start + place, row["pictured"]))
            worst = heapq.nsmallest(GALLERY_ROWS, worst)
        # When the worst images of an earlier run are gone, others move up: the gallery has no pictures of them yet.
        for *_, index, pictured in worst:
            done[index] = pictured
        return np.flatnonzero(~done), [-rank for rank, _, _, pictured in worst if pictured]

    def find_undone(self, files: FileList, is_done: Callable[[Row], bool]) -> NDArray[np.int64]:
        """Find the files whose finished row names what is not there.

        Args:
            files: What is asked for.
            is_done: Returns whether what a finished row names is still there.

        Returns:
            Indices of files, ascending.
        """
        lacking = [
            block.start + place
            for block in self.blocks(files, _OF_WORK)
            for place, row in zip(block.places.tolist(), block.rows.to_pylist(), strict=True)
            if row["status"] == "ok" and not is_done(row)
        ]
        return np.array(lacking, np.int64)

    def gallery(self, worst: Sequence[Row]) -> pa.Table:
        """The pictures of some rows, in their order."""
        wanted = {row["path"]: rank_of(row) for row in worst}
        pictures: dict[str, Row] = {}
        for shard in sorted(self._shards(), key=lambda shard: shard.path):
            if not any(shard.first <= path <= shard.last for path in wanted):
                continue
            for row in _read(shard.path, GALLERY.names).to_pylist():
                if row["thumbnail"] is not None and wanted.get(row["path"]) == rank_of(row):
                    pictures.setdefault(row["path"], row)
        measured = {row["path"]: {name: row[name] for name in FIGURES_OF_REFERENCE} for row in worst}
        found = [pictures[path] | measured[path] for path in wanted if path in pictures]
        return pa.Table.from_pylist(found, schema=GALLERY)

    def rows(self, names: Sequence[str]) -> Iterator[list[Row]]:
        """Some columns of every row that was ever written, whether it counts or not, a shard at a time."""
        for path in sorted(self.folder.glob("*.parquet")):
            with contextlib.suppress(OutputError):  # nobody knows any more what was in it
                yield _read(path, names).to_pylist()

    def _shards(self) -> Iterator[_Shard]:
        return map(_shard, self.folder.glob("*.parquet"))


def _shard(path: Path) -> _Shard:
    with _sound(path):
        with open_parquet(path) as file:
            ends = file.schema_arrow.metadata or {}
        if _FIRST not in ends:  # of an earlier version
            known = read_shard(path, ["path"])["path"].to_pylist()
            ends = {_FIRST: min(known).encode(), _LAST: max(known).encode()}
        return _Shard(path, ends[_FIRST].decode(), ends[_LAST].decode(), path.stat().st_mtime_ns)


def _read(path: Path, names: Sequence[str]) -> pa.Table:
    with _sound(path):
        return read_shard(path, names)


@contextlib.contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Delete a file that pyarrow cannot make sense of.

    Raises:
        OutputError: It was one.
    """
    try:
        yield
    except (MemoryError, FileNotFoundError):  # Arrow's own are of the next kind, too
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk: the file itself may be whole
        path.unlink(missing_ok=True)
        msg = f"{path} was damaged and is deleted, with the rows in it: start the same command again"
        raise OutputError(msg) from error


def worst_of(rows: Iterable[Row]) -> list[Row]:
    """The rows of the highest rank that there are pictures of, worst first."""
    return heapq.nsmallest(GALLERY_ROWS, rows, key=worst_first)


def _match_rows(files: FileList, tables: Sequence[pa.Table]) -> tuple[NDArray[np.int64], pa.Table]:
    """The first row that counts of each file, from tables whose newest comes first."""
    from_table = np.full(len(files), -1)
    from_row = np.zeros(len(files), np.int64)
    pictured = np.zeros(len(files), bool)
    for number, table in enumerate(tables):
        at = pc.index_in(files.relatives, value_set=table["path"].combine_chunks().cast(pa.large_string()))
        known = at.is_valid().to_numpy(zero_copy_only=False)
        at = at.fill_null(0).to_numpy().astype(np.int64)
        same = (table["size"].to_numpy()[at] == files.sizes) & (table["mtime_ns"].to_numpy()[at] == files.mtimes_ns)
        counts = known & same
        if "pictured" in table.column_names:
            pictured |= counts & table["pictured"].fill_null(False).to_numpy()[at]
        new = counts & (from_table < 0)
        from_table[new], from_row[new] = number, at[new]
    places = np.flatnonzero(from_table >= 0)
    if not len(places):
        return places, SHARD.empty_table()
    # Rows of one table after the other, and then into the order of the files.
    order = np.argsort(from_table[places], kind="stable")
    parts = [
        table.take(pa.array(from_row[places][from_table[places] == number])) for number, table in enumerate(tables)
    ]
    rows = pa.concat_tables(parts).take(pa.array(np.argsort(order, kind="stable")))
    if "pictured" in rows.column_names:
        index = rows.column_names.index("pictured")
        rows = rows.set_column(index, SHARD.field("pictured"), pa.array(pictured[places]))
    return places, rows
