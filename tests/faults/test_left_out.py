"""Files that are not read: a line on the terminal, and a block in run.json and in the report, whatever the verb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

LINE = (
    "warning: left out 6 files: 2 .dng (camera raw, which is not read), 1 .mp4 (video), "
    "1 without a suffix, 1 .xmp (not an image), 1 hidden; save the files that should be read as TIFF or PNG"
)


@pytest.fixture
def mixed(images: Path) -> Path:
    for name in ("a.dng", "b.DNG", "c.mp4", "d.xmp", "e", ".f"):
        (images / name).write_bytes(b"x")
    shutil.copy(next((images / "good").iterdir()), images / "photo")
    return images


def test_what_is_left_out_is_reported_and_is_no_failure(verb, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = verb.run(mixed, out)
    assert ended.code == 0
    assert ended.lines.count(LINE) == 1
    run = json.loads((out / "run.json").read_text())
    assert run["counts"]["files"] == 11  # the picture without a suffix is read
    assert [(row["files"], row["suffix"], row["why"]) for row in run["left_out"]] == [
        (2, ".dng", "camera raw, which is not read"),
        (1, ".mp4", "video"),
        (1, None, "not an image"),
        (1, ".xmp", "not an image"),
        (1, None, "hidden"),
    ]
    page = (out / "report.html").read_text()
    assert "<h2>Files left out</h2>" in page
    assert "6 files in the folder were not read" in page
    assert "a.dng" in page
