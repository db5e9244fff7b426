"""The output folder: rows that appear shard by shard, survive a kill, and end in the same bytes.

`OUT/.kintsugi-run/` holds the work so far: one parquet file for each finished shard, under a digest of what made it.
It also marks the folder as ours. A row counts as done while its file's size and time of change are the same; what is
not done is work.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.columns import GALLERY, PICTURES, RESULTS, SHARD, Row, read_shard
from pipelines.errors import FolderError, OutputError
from pipelines.images import OUTPUT_MARKER, ImageFile
from pipelines.text import for_spreadsheets

log = logging.getLogger(__name__)

GALLERY_ROWS = 64
TEMPORARY = ".kintsugi-tmp-"  # names of files that are not whole yet
LONGEST_SUFFIX = 6  # characters, as in .jpeg
LONGEST_NAME = 200  # bytes of UTF-8; file systems allow 255, some less


class OutputFolder:
    """An output folder held by this process alone."""

    def __init__(self, out: Path, *, work_key: str, source: Path | None = None, verb: str = "score") -> None:
        """Describe a folder; `held` opens it.

        Args:
            out: The folder.
            work_key: Digest of what rows and maps depend on beside the image: other rows do not count.
            source: The folder of the images; results of another one are not replaced. None: whichever it was.
            verb: What is done; results of another one are not replaced, either.
        """
        self.verb = verb
        self.out = out
        self.work_key = work_key
        self._source = source
        self._private = out / OUTPUT_MARKER
        self._shards = self._private / f"shards-{work_key[:16]}"

    @contextmanager
    def held(self, *, fresh: bool = False) -> Iterator[OutputFolder]:
        """Create the folder and lock it.

        Args:
            fresh: Forget earlier rows.

        Raises:
            OutputError: Another run holds it, or it holds something else, or the results of other images.
            FolderError: It cannot be written.
        """
        check_output(self.out, self._source, verb=self.verb)
        try:
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
            if not fresh and self._is_of_other_work():
                log.warning(
                    "%s holds what another model or other options made: all is made anew; another folder keeps both",
                    self.out,
                )
            if fresh:
                for shard in self._shards.glob("*.parquet"):
                    shard.unlink()
            for leftover in self.out.rglob(f"{TEMPORARY}*"):
                leftover.unlink()
            yield self

    def _is_of_other_work(self) -> bool:
        """Whether the last run here was with another model or other options."""
        try:
            last = json.loads((self.out / "run.json").read_text(encoding="utf-8")).get("work_key")
        except (OSError, ValueError, AttributeError):
            return False
        return last not in (None, self.work_key)

    def map_path(self, relative: str) -> Path:
        """Where a file's heat map lies; a name at the file system's limit is cut, with a digest to tell it apart."""
        parts = f"{relative}.png".split("/")
        return self.out.joinpath("maps", *map(shortened, parts))

    def rows(self, *, pictures: bool = False) -> pa.Table:
        """All rows written so far, later shards first."""
        columns = None if pictures else [name for name in SHARD.names if name not in dict(PICTURES)]
        paths = sorted(self._shards.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        names = columns or SHARD.names
        return pa.concat_tables([read_shard(path, names) for path in paths] or [SHARD.empty_table().select(names)])

    def done(self, files: Iterable[ImageFile], holds: Callable[[Row], bool]) -> dict[str, float]:
        """Paths that need no work, with their ranks: finished, unchanged, and with the pictures that are due.

        Args:
            files: What is asked for.
            holds: Whether what a finished row tells of is still there.
        """
        unchanged = {file.relative: (file.size, file.mtime_ns) for file in files}
        finished: dict[str, float] = {}
        pictured: set[str] = set()
        for row in self.rows().to_pylist():
            path = row["path"]
            if row["status"] != "ok" or unchanged.get(path) != (row["size"], row["mtime_ns"]):
                continue
            if row["pictured"]:
                pictured.add(path)
            if holds(row):
                finished.setdefault(path, rank_of(row))
        # When the worst images of an earlier run are gone, others move up: the gallery has no pictures of them yet.
        for path in sorted(finished, key=lambda path: (-finished[path], path))[:GALLERY_ROWS]:
            if path not in pictured:
                del finished[path]
        return finished

    def write_shard(self, rows: Sequence[Row]) -> None:
        """Make a shard's rows appear at once, with the pictures of its worst: no others can be the worst of all."""
        name = hashlib.sha256("\n".join(f"{r['path']} {r['mtime_ns']}" for r in rows).encode()).hexdigest()[:24]
        pictured = sorted((row for row in rows if row["thumbnail"] is not None), key=worst_first)
        for row in pictured[GALLERY_ROWS:]:
            row.update(dict.fromkeys(name for name, _ in PICTURES))
        rows = [row | {"pictured": row["thumbnail"] is not None} for row in rows]
        table = pa.Table.from_pylist(rows, schema=SHARD)
        write_atomically(self._shards / f"{name}.parquet", lambda path: pq.write_table(table, path))

    def all_rows(self) -> list[Row]:
        """The newest row of every file, by path: all there is of a run that was stopped."""
        newest: dict[str, Row] = {}
        for row in self.rows().to_pylist():
            newest.setdefault(row["path"], row)
        return [newest[path] for path in sorted(newest)]

    def merge(self, files: Sequence[ImageFile]) -> list[Row]:
        """One row for each file, in the order of files: the newest one that counts."""
        wanted = {file.relative: (file.size, file.mtime_ns) for file in files}
        newest: dict[str, Row] = {}
        for row in self.rows().to_pylist():
            del row["pictured"]
            if wanted.get(row["path"]) == (row.pop("size"), row.pop("mtime_ns")):
                newest.setdefault(row["path"], row)
        return [newest[file.relative] for file in files if file.relative in newest]

    def write_results(self, rows: Sequence[Row]) -> None:
        """Write results.parquet, and the same for people as results.csv."""
        table = pa.Table.from_pylist(list(rows), schema=RESULTS)
        write_atomically(self.out / "results.parquet", lambda path: pq.write_table(table, path))
        write_atomically(self.out / "results.csv", lambda path: _write_csv(for_spreadsheets(table), path))

    def write_gallery(self, rows: Sequence[Row]) -> None:
        """Write the worst images' pictures, gathered from all shards."""
        worst = sorted((r for r in rows if r["status"] == "ok"), key=worst_first)[:GALLERY_ROWS]
        wanted = {row["path"]: worst_first(row) for row in worst}
        pictures: dict[str, Row] = {}
        for path in sorted(self._shards.glob("*.parquet")):
            for row in read_shard(path, GALLERY.names).to_pylist():
                if row["thumbnail"] is not None and wanted.get(row["path"]) == worst_first(row):
                    pictures.setdefault(row["path"], row)
        measured = {row["path"]: {name: row[name] for name in ("psnr", "ssim", "dice", "iou")} for row in worst}
        found = [pictures[path] | measured[path] for path in wanted if path in pictures]
        table = pa.Table.from_pylist(found, schema=GALLERY)
        write_atomically(self._private / "gallery.parquet", lambda path: pq.write_table(table, path))

    def tidy(self, rows: Sequence[Row]) -> None:
        """Drop what no longer holds: heat maps of images that are not flagged any more, other models' shards.

        Only maps that a row of ours names are deleted, and folders that this leaves empty.
        """
        due = {self.map_path(row["path"]) for row in rows if row["is_anomaly"]}
        for shard in self._private.glob("shards-*/*.parquet"):
            for name in pq.read_table(shard, columns=["path"])["path"].to_pylist():
                path = self.map_path(name)
                if path in due or not path.is_file():
                    continue
                path.unlink()
                for folder in path.relative_to(self.out).parents[:-1]:
                    with contextlib.suppress(OSError):
                        (self.out / folder).rmdir()  # only when it is empty
        self._forget_other_shards()

    def forget_results(self, due: Collection[str]) -> None:
        """Delete what rows of ours name as output and is not due any more, and other models' shards."""
        for shard in self._private.glob("shards-*/*.parquet"):
            for row in read_shard(shard, ("output", "samples")).to_pylist():
                for name in outputs_of(row):
                    if name not in due:
                        (self.out / name).unlink(missing_ok=True)
        self._forget_other_shards()

    def _forget_other_shards(self) -> None:
        for other in self._private.glob("shards-*"):
            if other != self._shards:
                shutil.rmtree(other)

    def forget_evaluation(self) -> None:
        """Figures of an earlier run are not this one's."""
        (self.out / "evaluation.json").unlink(missing_ok=True)

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file into the folder."""
        write_json(self.out / name, document)


def outputs_of(row: Row) -> list[str]:
    """Every image that a row tells of: the result, and samples under `samples/1`, `samples/2`, ... in the same tree.

    >>> outputs_of({"output": "restored/a/b.png", "samples": 2})
    ['restored/a/b.png', 'samples/1/a/b.png', 'samples/2/a/b.png']
    """
    if row["output"] is None:
        return []
    within = row["output"].removeprefix("restored/")
    return [row["output"], *(f"samples/{number}/{within}" for number in range(1, (row["samples"] or 0) + 1))]


def _write_csv(table: pa.Table, path: Path) -> None:
    """UTF-8 with a byte-order mark: without it Excel reads names in the encoding of the system's language."""
    with path.open("wb") as file:
        file.write(codecs.BOM_UTF8)
        pa_csv.write_csv(table, file)


def check_output(out: Path, source: Path | None, *, verb: str = "score") -> None:
    """Refuse an output folder that a run must not write to, before the work begins; nothing is touched.

    Args:
        out: The output folder.
        source: The folder of the images: results of another one are not replaced, whose rows and maps would be gone.
            None: whichever it was.
        verb: What is to be done.

    Raises:
        OutputError: It holds something else, or the results of other images or of another verb.
        FolderError: It is a file.
    """
    private = out / OUTPUT_MARKER
    try:
        if out.is_file():
            msg = f"the output folder {out} is a file; give a folder"
            raise FolderError(msg)
        if out.is_dir() and not private.is_dir() and any(out.iterdir()):
            msg = f"the output folder {out} holds something else; give an empty or a new folder"
            raise OutputError(msg)
        kept = (out / "results.parquet").is_file() or any(private.glob("shards-*/*.parquet"))
        before, did = _source_of(out) if kept else (None, verb)
    except OSError as error:
        msg = f"the output folder {out} cannot be read: {error.strerror}"
        raise FolderError(msg) from None
    if source is not None and did != verb:
        msg = f"the output folder {out} holds the results of `kintsugi {did}`: give another --out to {verb}"
        raise OutputError(msg)
    if source is None or before is None or _is_same(before, source):
        return
    msg = (
        f"the output folder {out} holds the results of {before}, not of {source}: give another --out. "
        f"If that is the old name of the same folder, or its results are not needed, delete {out} first"
    )
    raise OutputError(msg)


def _source_of(out: Path) -> tuple[Path | None, str]:
    """The folder of the images that an output folder is about, and what was done, as its run.json says."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return Path(run["folder"]), str(run.get("verb", "score"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None, "score"


def _is_same(before: Path, now: Path) -> bool:
    try:
        return before.samefile(now)
    except OSError:  # it is gone, or not ours to see
        return False


def shortened(name: str) -> str:
    """A file name that is not too long for file systems: its middle makes room for a digest that tells it apart."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    suffix = Path(name).suffix if len(Path(name).suffix) <= LONGEST_SUFFIX else ""
    return encoded[: LONGEST_NAME - 30].decode("utf-8", "ignore") + f"~{digest}{suffix}"


def rank_of(row: Row) -> float:
    """By what the worst images are known: the score, or how wide the error bar of a restored one is."""
    rank: float = row["mean_scale"] if row["score"] is None else row["score"]
    return rank


def worst_first(row: Row) -> tuple[float, str]:
    """Sort key: highest rank first, then by path."""
    return (-rank_of(row), row["path"])


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON atomically; not-a-number has no place in it."""
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Any) -> None:  # noqa: ANN401 - any callable that takes a path
    """Let `write(temporary_path)` make a file, then move it into place: nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f"{TEMPORARY}{os.getpid()}-{threading.get_ident():x}"
    )  # short: names can be at the limit
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
