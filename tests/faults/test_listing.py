"""Very many files in one folder, and folders as deep as the system lets them be."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from pipelines.images import FileList, list_images
from pipelines.images.listing import ImageFile

MANY = 200_000
LINKS = 50_000  # to one file; ext4 has room for 65,000
SECONDS = 20  # of a processor; it takes three


@pytest.fixture
def many(tmp_path: Path):
    """So many names of a few files."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MANY):
        name = folder / f"{number * 7919 % MANY:06}.jpg"  # not in the order of names
        first = folder / f"{number // LINKS * LINKS * 7919 % MANY:06}.jpg"
        name.touch() if name == first else os.link(first, name)
    yield folder
    shutil.rmtree(folder)


def test_two_hundred_thousand_files_are_listed_in_seconds(many: Path) -> None:
    start = time.process_time()
    files = list_images(many).files
    assert time.process_time() - start < SECONDS
    assert len(files) == MANY
    assert files.relatives[0].as_py() == "000000.jpg"
    assert files[MANY - 1].path == many / f"{MANY - 1:06}.jpg"
    start = time.process_time()
    assert sum(len(block) for block in files.blocks()) == MANY
    again = FileList.of(many, reversed([ImageFile(each.path, each.relative, 0, 0) for each in files]))
    assert again.relatives == files.relatives
    assert time.process_time() - start < SECONDS


@pytest.fixture
def place(images: Path):
    """A folder with images that is none of pytest's own, whose removal would go no deeper than Python's stack."""
    folder = Path(tempfile.mkdtemp(prefix="kintsugi-deep-"))
    shutil.copytree(images, folder / "images")
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def make_deep(root: Path, name: str, levels: int, image: bytes) -> None:
    """A file at the end of a chain of folders, whose path may be longer than the system takes."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=at)
    os.write(file, image)
    os.close(file)
    os.close(at)


def test_a_thousand_folders_deep(verb, rows_of, stable_bytes, place: Path) -> None:
    images = place / "images"
    image = next((images / "crack").iterdir()).read_bytes()
    shutil.rmtree(images / "good")
    make_deep(images, "d", 1000, image)
    make_deep(images, "eee", 980, image)  # almost as long as a path may be; results have no room there
    make_deep(images, "ffff", 1000, image)  # longer
    ended = verb.run(images, place / "out")
    assert ended.code == 3
    rows = rows_of(place / "out")
    failed = {path: row["error"] for path, row in rows.items() if row["status"] == "failed"}
    ((path, error),) = failed.items()
    assert path.startswith("ffff/ffff/")
    assert error == "the folder cannot be read: File name too long"
    assert len(rows) == 3 + 3
    if verb.name == "restore":
        made = [place / "out" / row["output"] for row in rows.values() if row["status"] == "ok"]
        assert all(path.is_file() for path in made)
        assert max(len(row["output"].split("/")) for row in rows.values() if row["status"] == "ok") == 1002
        assert [path.parent.name[:5] for path in made if "eee" in str(path) or "deep~" in str(path)] == ["deep~"]
    before = stable_bytes(place / "out")
    ended = verb.run(images, place / "out")
    assert f"{len(rows) - 1} of {len(rows) - 1} images are already done" in ended.lines
    assert stable_bytes(place / "out") == before


def test_half_written_files_far_below_are_found(verb, place: Path) -> None:
    images = place / "images"
    assert verb.run(images, place / "out").code == 0
    make_deep(place / "out", "d", 1000, b"half")
    deepest = place / "out" / "/".join(["d"] * 1000)
    (deepest / "x.png").rename(deepest / ".kintsugi-tmp-1-2-png")
    assert verb.run(images, place / "out").code == 0
    assert not list(deepest.iterdir())
