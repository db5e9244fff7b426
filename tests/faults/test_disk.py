"""Disks that are full, protected or broken: the run stops with one line, and the same command finishes it later."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.base.files import TEMPORARY

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from flows.cli import main
sys.argv = ["kintsugi", *sys.argv[2:]]
main()
"""


def expect_one_line(code: int, lines: tuple[str, ...], reason: str) -> None:
    """A clean stop that tells what the system said, and what to do."""
    assert code == 2
    (line,) = lines
    assert line.startswith("error: ")
    assert reason in line
    assert "free space" in line


def expect_whole_files(out: Path) -> None:
    """Nothing half written has its final name, and nothing unfinished is left."""
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert not path.name.startswith(TEMPORARY)
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())


@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
def test_a_full_disk_stops_a_run_which_ends_when_there_is_room(
    verb, small_disk, stable_bytes, images: Path, tmp_path: Path, share: float
) -> None:
    whole = tmp_path / "whole"
    verb.run(images, whole)
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    if small_disk is not None:
        out = small_disk.place / "out"
        small_disk.resize(int(share * sum(-(-size // 4096) * 4 for size in sizes)))
        ended = verb.run(images, out)
        small_disk.resize(100_000)
        lines, code, reason = ended.lines, ended.code, "No space left on device"
    else:  # not every user may mount a disk: then files have a limit, above which writes fail as they do on a full one
        out, limit = tmp_path / "out", str(int(share * max(sizes)))
        words = [sys.executable, "-c", LIMITED, limit, *verb.words(images, out)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        lines, code, reason = tuple(done.stderr.splitlines()), done.returncode, "File too large"
    expect_one_line(code, lines, reason)
    expect_whole_files(out)
    assert verb.run(images, out).code == 0
    assert stable_bytes(out) == stable_bytes(whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_breaks_at_any_file_stops_the_run(
    verb, stable_bytes, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Every file is flushed to the disk before it appears: that is where a disk tells what it could not do."""
    flushed: list[int] = []
    fsync, fails_at = os.fsync, -1

    def failing(file: int) -> None:
        flushed.append(file)
        if len(flushed) - 1 == fails_at:
            raise OSError(number, os.strerror(number))
        fsync(file)

    monkeypatch.setattr(os, "fsync", failing)
    verb.run(images, tmp_path / "whole")
    files, whole = len(flushed), stable_bytes(tmp_path / "whole")
    for fails_at in (0, 1, files // 2, files - 2, files - 1):
        flushed.clear()
        out = tmp_path / f"out{fails_at}"
        ended = verb.run(images, out)
        expect_one_line(ended.code, ended.lines, os.strerror(number))
        expect_whole_files(out)
        fails_at = -1  # mended
        assert verb.run(images, out).code == 0
        assert stable_bytes(out) == whole


def test_a_protected_place_is_told_before_anything_is_done(verb, small_disk, images: Path, tmp_path: Path) -> None:
    place = Path("/proc")  # where nobody can make a folder
    if small_disk is not None:
        place = small_disk.place
        small_disk.protect(on=True)
    ended = verb.run(images, place / "out")
    assert ended.code == 2
    (line,) = ended.lines
    assert line.startswith(f"error: the output folder {place / 'out'} cannot be written: ")


def test_results_that_became_protected_are_told_too(
    verb, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    verb.run(images, out)
    opened = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if path.is_relative_to(out) and mode[0] in "wa":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    ended = verb.run(images, out)
    assert (ended.code, ended.lines) == (
        2, (f"error: the output folder {out} cannot be written: Read-only file system",)
    )  # fmt: skip
