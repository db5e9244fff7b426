"""The output folder: rows that appear shard by shard, survive a kill, and end in the same bytes.

`OUT/.kintsugi-run/` holds the work so far: one parquet file for each finished shard, under a digest of what made it.
It also marks the folder as ours. A row counts as done while its file's size and time of change are the same; what is
not done is work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.base.files import (
    TEMPORARY,
    folds_names,
    make_folders,
    map_name,
    unfinished,
    write_atomically,
    write_json,
)
from pipelines.base.parquet import write_table
from pipelines.batch.output_names import NameSet
from pipelines.batch.schema import Row
from pipelines.batch.shard_store import RowStore
from pipelines.errors import FolderError, OutputError
from pipelines.images import OUTPUT_MARKER
from pipelines.models.model_file import ModelFile

log = logging.getLogger(__name__)


class OutputFolder:
    """An output folder held by this process alone."""

    def __init__(self, out: Path, *, work_key: str, source: Path | None = None, verb: str = "score") -> None:
        """Describe a folder; `hold` opens it.

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
        self.store = RowStore(self._private / f"shards-{work_key[:16]}")

    @contextmanager
    def hold(self, *, fresh: bool = False) -> Iterator[OutputFolder]:
        """Create the folder and lock it.

        Args:
            fresh: Forget earlier rows, and delete the heat maps and results that they name.

        Raises:
            OutputError: Another run holds it, or it holds something else, or the results of other images.
            FolderError: It cannot be written.
        """
        check_output(self.out, self._source, verb=self.verb)
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
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
            except BlockingIOError:
                msg = f"another run is writing to {self.out}; wait for it, or give another folder"
                raise OutputError(msg) from None
            except OSError as error:
                msg = f"the file system of {self.out} locks no files ({error.strerror}): give a folder on another one"
                raise FolderError(msg) from None
            if not fresh and self._is_of_other_work():
                log.warning(
                    "%s holds results of another model or other options, which are replaced; give another folder to "
                    "keep both",
                    self.out,
                )
            if fresh:
                self._forget_all()
            self.sweep()
            yield self

    def sweep(self) -> None:
        """Delete what killed processes have left half written; of one that still writes, the shard is done again."""
        for leftover in unfinished(self.out):
            leftover.unlink(missing_ok=True)

    def _is_of_other_work(self) -> bool:
        """Whether the last run here was with another model or other options."""
        try:
            last = json.loads((self.out / "run.json").read_text(encoding="utf-8")).get("work_key")
        except (OSError, ValueError, AttributeError):
            return False
        return last not in (None, self.work_key)

    @cached_property
    def folds(self) -> bool:
        """Whether its file system takes upper and lower case as equal; the folder is there."""
        return folds_names(self.out, OUTPUT_MARKER)

    def map_path(self, relative: str) -> Path:
        """Where a file's heat map lies; a name at the file system's limit is cut, with a digest to tell it apart."""
        return self.out / map_name(relative, folds=self.folds)

    def write_gallery(self, worst: Sequence[Row]) -> None:
        """Write the worst images' pictures, gathered from the rows so far."""
        table = self.store.gallery(worst)
        write_atomically(self._private / "gallery.parquet", lambda path: write_table(table, path))

    def new_names(self) -> NameSet:
        """Begin a set of names of what is to be in the folder."""
        return NameSet(folds=self.folds)

    def tidy(self, due: NameSet) -> None:
        """Drop what no longer holds: heat maps of images that are not flagged any more, rows of other models.

        Only maps that a row of ours names are deleted, and folders that this leaves empty.

        Args:
            due: Names of the heat maps that are to be there.
        """
        for rows in self._all_rows("path"):
            for row in rows:
                self._remove(map_name(row["path"], folds=self.folds), due)
        self._forget_other_rows()

    def forget_results(self, due: NameSet) -> None:
        """Delete what rows of ours name as output and is not due any more, and rows of other models."""
        for name in self._results():
            self._remove(name, due)
        self._forget_other_rows()

    def clear_way(self, due: Iterable[str]) -> None:
        """Delete results that are files where a folder is needed now, or in a folder where a file is needed.

        Args:
            due: Names of results that are to be there.
        """
        files, folders = self.new_names(), self.new_names()
        for name in due:
            files.add(name)
            for above in PurePosixPath(name).parents[:-1]:
                folders.add(str(above))
        for name in self._results():
            if name in folders or any(str(above) in files for above in PurePosixPath(name).parents[:-1]):
                self._remove(name, files)

    def _forget_all(self) -> None:
        """Delete what rows of ours name, and the rows: nothing of an earlier run counts, or stays behind."""
        nothing = self.new_names()
        for name in self._results():
            self._remove(name, nothing)
        self.tidy(nothing)
        self.store.clear()

    def _results(self) -> Iterator[str]:
        for rows in self._all_rows("output", "samples"):
            for row in rows:
                yield from outputs_of(row)

    def _remove(self, name: str, due: NameSet) -> None:
        if name in due or _leads_out(name) or not (path := self.out / name).is_file():
            return
        path.unlink()
        for folder in PurePosixPath(name).parents[:-2]:
            with contextlib.suppress(OSError):
                (self.out / folder).rmdir()  # only when it is empty

    def _all_rows(self, *names: str) -> Iterator[list[Row]]:
        for folder in self._private.glob("shards-*"):
            yield from RowStore(folder).rows(names)

    def _forget_other_rows(self) -> None:
        for other in self._private.glob("shards-*"):
            if other != self.store.folder:
                shutil.rmtree(other, ignore_errors=True)

    def forget_evaluation(self) -> None:
        """Figures of an earlier run are not this one's."""
        for name in ("evaluation.json", "review.json"):
            (self.out / name).unlink(missing_ok=True)

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file into the folder."""
        write_json(self.out / name, document)


def _leads_out(name: str) -> bool:
    """Of a folder that came from elsewhere, rows may name files of ours."""
    return name.startswith("/") or ".." in PurePosixPath(name).parts


def outputs_of(row: Row) -> list[str]:
    """Every image that a row tells of: the result, and samples under `samples/1`, `samples/2`, ... in the same tree.

    >>> outputs_of({"output": "restored/a/b.png", "samples": 2})
    ['restored/a/b.png', 'samples/1/a/b.png', 'samples/2/a/b.png']
    """
    if row["output"] is None:
        return []
    within = row["output"].removeprefix("restored/")
    return [row["output"], *(f"samples/{number}/{within}" for number in range(1, (row["samples"] or 0) + 1))]


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
            msg = f"the output folder {out} holds other files; give an empty or a new folder"
            raise OutputError(msg)
        kept = (out / "results.parquet").is_file() or any(private.glob("shards-*/*.parquet"))
        before, did = _source_of(out) if kept else (None, verb)
    except OSError as error:
        msg = f"the output folder {out} cannot be read: {error.strerror}"
        raise FolderError(msg) from None
    if source is not None and did not in (None, verb):
        msg = f"the output folder {out} holds the results of `kintsugi {did}`: give another --out to {verb}"
        raise OutputError(msg)
    if source is None or before is None or _is_same(before, source):
        return
    msg = (
        f"the output folder {out} holds the results of {before}, not of {source}: give another --out. "
        f"If that is the old name of the same folder, or its results are not needed, delete {out} first"
    )
    raise OutputError(msg)


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before the work begins. Nothing stays behind.

    Raises:
        FolderError: It is a folder, or what is above it cannot be written.
    """
    try:
        taken = path.is_dir()
    except OSError as error:  # too long a name, or a folder above it that we may not look into
        raise FolderError(f"{path} cannot be written: {error.strerror}; give another file") from None
    if taken:
        raise FolderError(f"{path} is a folder: give a file, such as one in it")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder that takes no files, before the work begins. Nothing stays behind: the work may be refused yet.

    Raises:
        FolderError: It cannot be made, or no file in it.
    """
    made: list[Path] = []
    try:
        made = make_folders(folder)
        with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY):
            pass
    except OSError as error:
        raise FolderError(f"the folder {folder} cannot be written: {error.strerror}; give another one") from None
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # somebody else's by now
                each.rmdir()


def check_own(out: Path, account: str) -> None:
    """Refuse a folder that is a file, or holds what no earlier call has written.

    Raises:
        FolderError: It is such a folder.
    """
    if out.is_file():
        raise FolderError(f"the output folder {out} is a file; give a folder")
    if out.is_dir() and not (out / account).is_file() and any(out.iterdir()):
        raise FolderError(f"the output folder {out} holds other files; give an empty or a new folder")


def warn_replaced(account: Path, model: ModelFile) -> None:
    """Say so if what another model made is about to be replaced.

    Args:
        account: The JSON file that is written with each output; its keys `model` and `sha256` tell which model made it.
        model: The one that is used now.
    """
    try:
        before = json.loads(account.read_text(encoding="utf-8"))
        name, digest = str(before["model"]), before["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if digest != model.sha256:
        log.warning(
            "%s holds results of %s, which are replaced; give another folder to keep both", account.parent, name
        )


def _source_of(out: Path) -> tuple[Path | None, str | None]:
    """The folder of the images that an output folder is about, and what was done; None where its run.json is lost."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return Path(run["folder"]), str(run.get("verb", "score"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None, None


def _is_same(before: Path, now: Path) -> bool:
    try:
        return before.samefile(now)
    except OSError:  # it is gone, or not ours to see
        return False
