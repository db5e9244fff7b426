"""Lists of files as columns: the same records as a list of them, in much less memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.images import FileList, ImageFile, find_images, list_images, listing


def record(name: str, number: int = 0) -> ImageFile:
    return ImageFile(Path("root") / name, name, number, 10 * number)


def test_records_come_back_in_the_order_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_CHUNK", 3)
    files = [record(f"{number:03}.png", number) for number in range(10)]
    for given in (files, files[::-1]):
        found = FileList.of(Path("root"), given)
        assert list(found) == files
        assert [found[index] for index in range(-10, 10)] == files + files
        assert list(found[2:9:3]) == files[2:9:3]
        assert list(found.take(np.array([0, 9]))) == [files[0], files[9]]
        assert [list(block) for block in found.blocks(4)] == [files[:4], files[4:8], files[8:]]
    assert not len(FileList.of(Path("root"), []))


def test_a_file_that_is_elsewhere_than_its_name_says_is_found() -> None:
    odd = ImageFile(Path("root") / "caf\udce9.png", r"caf\xe9.png", 1, 2)
    found = FileList.of(Path("root"), [odd, record("b.png")])
    assert [file.path for file in found] == [Path("root/b.png"), odd.path]


@pytest.mark.parametrize("root", [".", "images", "/"])
def test_paths_of_any_root_need_no_memory_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    place = {"/": "/", ".": ".", "images": "images"}[root]
    files = FileList.of(Path(place), [ImageFile(Path(place) / "a/b.png", "a/b.png", 1, 2)])
    assert files[0].path == Path(place) / "a/b.png"
    assert not files._unlike


def test_a_hundred_thousand_files_take_little_memory() -> None:
    files = FileList.of(Path("root"), (record(f"camera 1/2026-11-21/{number:08}.jpg") for number in range(100_000)))
    assert len(files) == 100_000
    assert files.relatives.nbytes + files.sizes.nbytes + files.mtimes_ns.nbytes < 6_000_000  # records: 40 million
    assert not files._unlike


def test_links_to_folders_are_sorted_among_the_others(tmp_path: Path) -> None:
    for name in ("images/b/1.png", "elsewhere/2.png", "images/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images" / "a").symlink_to(tmp_path / "elsewhere")
    assert [file.relative for file in find_images(tmp_path / "images")] == ["a/2.png", "b/1.png", "c.png"]


def test_the_walk_gives_names_in_their_order(tmp_path: Path) -> None:
    """So that a list of millions needs no sorting."""
    names = ["a-b.png", "a.png", "a/c.png", "a/é.png", "a0.png", "B/z.png", "a.b/c.png", "ab/c/d.png", "é/1.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path).files.relatives.to_pylist() == sorted(names)
