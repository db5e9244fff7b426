"""The layout, and the two halves: every test image in one of them, by its bytes alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.bench.dataset import check_layout, fingerprint, half_of, published_for, view_of
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError, FolderError
from pipelines.images import find_images


def test_halves_are_disjoint_and_complete(tmp_path: Path) -> None:
    names = {
        half: {file.relative for file in find_images(view_of(MAGNETIC_TILE, half, tmp_path) / "test")}
        for half in ("A", "B")
    }
    assert names["A"] & names["B"] == set()
    assert names["A"] | names["B"] == {file.relative for file in find_images(MAGNETIC_TILE / "test")}
    assert min(map(len, names.values())) > 5


def test_a_view_shows_the_images_and_their_masks(tmp_path: Path) -> None:
    view = view_of(MAGNETIC_TILE, "A", tmp_path)
    for file in find_images(view / "test"):
        assert file.path.read_bytes() == (MAGNETIC_TILE / "test" / file.relative).read_bytes()
        assert half_of(file.path) == "A"
        if not file.relative.startswith("good/"):
            assert (view / "ground_truth" / file.relative).with_suffix(".png").is_file()
    assert view_of(MAGNETIC_TILE, "all", tmp_path) == MAGNETIC_TILE


def test_a_view_is_made_anew(tmp_path: Path) -> None:
    dataset = tmp_path / "tiles"
    shutil.copytree(MAGNETIC_TILE, dataset)
    before = {file.relative for file in find_images(view_of(dataset, "B", tmp_path) / "test")}
    gone = next(file for file in find_images(dataset / "test") if file.relative in before)
    gone.path.unlink()
    assert {file.relative for file in find_images(view_of(dataset, "B", tmp_path) / "test")} == before - {gone.relative}


def test_the_name_of_an_image_does_not_decide(tmp_path: Path) -> None:
    for file in find_images(MAGNETIC_TILE / "test")[:8]:
        copy = tmp_path / f"other-{file.path.name}"
        shutil.copy(file.path, copy)
        assert half_of(copy) == half_of(file.path)


def test_a_half_without_good_images_is_refused(tmp_path: Path) -> None:
    shutil.copytree(MAGNETIC_TILE / "test", tmp_path / "set" / "test")
    for file in find_images(tmp_path / "set" / "test" / "good"):
        if half_of(file.path) == "A":
            file.path.unlink()
    with pytest.raises(DataError, match=r"half A of .* has no good image: use --half all"):
        view_of(tmp_path / "set", "A", tmp_path / "views")


def test_the_layout_is_checked(tmp_path: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(FolderError, match=r"there is no test/good in it"):
        check_layout(tmp_path)


def test_the_fingerprint_is_of_the_images_wherever_they_are(tmp_path: Path) -> None:
    shutil.copytree(MAGNETIC_TILE, tmp_path / "copy")
    before = fingerprint(tmp_path / "copy")
    assert before == fingerprint(MAGNETIC_TILE)
    file = find_images(tmp_path / "copy" / "train" / "good")[0].path
    file.write_bytes(file.read_bytes() + b"\0")
    assert fingerprint(tmp_path / "copy") != before


def test_published_figures_are_not_held_against_a_sample() -> None:
    assert published_for(MAGNETIC_TILE) == ()
