"""Rows so far: which count, in blocks, whatever was written when."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.batch import shard_store
from pipelines.batch.rows import empty_row
from pipelines.batch.schema import Row
from pipelines.batch.shard_store import RowStore
from pipelines.images import FileList, ImageFile, listing

RANDOM = np.random.default_rng(0)


def file(number: int, changed: int = 0) -> ImageFile:
    return ImageFile(Path(f"{number:03}.png"), f"{number:03}.png", 10 + number, changed)


def row(of: ImageFile, score: float, status: str = "ok", *, picture: bool = False) -> Row:
    return empty_row(of) | {"status": status, "score": score, "thumbnail": b"x" if picture else None}


class Written:
    """A store whose files are written in an order that the clock of the file system tells."""

    def __init__(self, folder: Path) -> None:
        self.store, self._count = RowStore(folder), 0

    def write(self, *rows: Row) -> None:
        before = set(self.store.folder.glob("*.parquet"))
        self.store.write(rows)
        self._count += 1
        for path in set(self.store.folder.glob("*.parquet")) - before:
            os.utime(path, ns=(0, self._count * 10**9))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "shards")


def scores(written: Written, files: FileList) -> dict[str, float]:
    found: dict[str, float] = {}
    for block in written.store.blocks(files, ("path", "score")):
        assert block.rows["path"].to_pylist() == block.files.relatives.take(block.places).to_pylist()
        found |= dict(zip(block.rows["path"].to_pylist(), block.rows["score"].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_newest_row_that_counts_is_found(written: Written, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Against a dictionary, with rows in random pieces."""
    monkeypatch.setattr(listing, "BLOCK_FILES", size)
    files = [file(number) for number in range(40)]
    expected: dict[str, float] = {}
    for turn in range(25):
        chosen = RANDOM.choice(40, RANDOM.integers(1, 12), replace=False)
        stale = turn % 5 == 4  # rows of what the file was before
        some = [row(file(number, changed=7 * stale), turn + number / 100) for number in chosen]
        written.write(*some)
        if not stale:
            expected |= {each["path"]: each["score"] for each in some}
    assert scores(written, FileList.of(Path(), files)) == expected


def test_an_empty_store_has_empty_blocks(written: Written) -> None:
    (block,) = written.store.blocks(FileList.of(Path(), [file(0), file(1)]))
    assert (len(block.rows), len(block.places), len(block.files)) == (0, 0, 2)


def test_what_is_left_is_what_is_missing_changed_failed_or_gone(written: Written) -> None:
    written.write(row(file(0), 1.0, picture=True), row(file(1), 2.0, "failed"), row(file(2), 3.0, picture=True))
    written.write(row(file(3, changed=1), 4.0, picture=True), row(file(5), 0.5, picture=True))
    files = FileList.of(Path(), [file(number) for number in range(6)])
    left, worst = written.store.find_left(files, lambda each: each["path"] != "002.png")
    assert left.tolist() == [1, 2, 3, 4]
    assert worst == [1.0, 0.5]


def test_the_worst_need_pictures_which_any_row_that_counts_may_have(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_store, "GALLERY_ROWS", 2)
    files = FileList.of(Path(), [file(number) for number in range(4)])
    written.write(*(row(file(number), float(number), picture=number == 3) for number in range(4)))
    written.write(row(file(3), 3.0))  # made again, without
    left, worst = written.store.find_left(files, lambda _: True)
    assert left.tolist() == [2]
    assert worst == [3.0]


def test_only_the_worst_of_a_write_keep_their_pictures(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_store, "GALLERY_ROWS", 2)
    rows = [row(file(number), float(number), picture=True) for number in range(5)]
    written.write(*rows)
    gallery = written.store.gallery(sorted(rows, key=lambda each: -each["score"])[:3])
    assert gallery["path"].to_pylist() == ["004.png", "003.png"]


def test_files_are_as_they_were_when_rows_were_written(written: Written) -> None:
    written.write(row(file(2), 1.0), row(file(1, changed=3), 1.0))
    written.write(row(file(1, changed=4), 2.0))
    assert list(written.store.files()) == [file(1, changed=4), file(2)]
