"""Images of many sizes in one file: what is read back, crops within them, copies, and files that are broken."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.cache import reading_anew
from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.errors import DataError
from pipelines.images import find_images
from pipelines.images.convert import pixel_digest
from pipelines.images.label_images import LabelFolder
from pipelines.settings import settings
from vaecore.representations.image_format import ImageFormat

RGB = ImageFormat(channels=3, bit_depth=8)
SIZES = [(40, 60), (5, 90), (33, 33), (1, 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    for number, (height, width) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{number}.png")
    return made


def load(folder: Path) -> CropImages:
    return load_crop_images(find_images(folder), RGB)


def test_every_image_is_read_back_and_the_next_time_from_disk(folder: Path, own_home: Path) -> None:
    images = load(folder)
    assert images.sizes == tuple(SIZES)
    for number, path in enumerate(sorted(folder.iterdir())):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        assert np.array_equal(images.image(number), pixels)
        assert images.pixel_sha256[number] == pixel_digest(pixels)
    (raw,) = own_home.rglob("photos.raw")
    before = raw.stat().st_mtime_ns
    assert np.array_equal(load(folder).flat, images.flat)
    assert raw.stat().st_mtime_ns == before


def test_copies_in_another_format_and_broken_files_are_left_out(folder: Path) -> None:
    with Image.open(folder / "0.png") as image:
        image.save(folder / "copy.bmp")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert [file.relative for file in load(folder).files] == ["0.png", "1.png", "2.png", "3.png"]


def test_none_that_can_be_read_is_an_error_and_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff")
    for _ in range(2):
        with pytest.raises(DataError, match="none of 1 images can be read; the first: is truncated"):
            load(folder)
    Image.new("RGB", (9, 9)).save(folder / "a.jpg")
    assert load(folder).sizes == ((9, 9),)


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read_again_when_asked(folder: Path) -> None:
    path = folder / "4.bmp"
    Image.new("RGB", (8, 8), "red").save(path)
    before, first = path.stat(), load(folder).sha256
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with reading_anew(wanted=False):
        assert load(folder).sha256 == first
    with reading_anew():
        again = load(folder).sha256
        (raw,) = {path.stat().st_ino for path in settings().home.rglob("photos.raw")}
        load(folder)
        assert {path.stat().st_ino for path in settings().home.rglob("photos.raw")} == {raw}, "once is enough"
    assert again[:4] == first[:4]
    assert again[4] != first[4]
    assert load(folder).sha256 == again


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch):
    """Let the system refuse to read files whose name is in the set that this gives."""
    away: set[str] = set()
    read = Path.read_bytes

    def read_or_fail(path: Path) -> bytes:
        if path.name in away:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_or_fail)
    return away


def test_an_image_that_could_not_be_read_once_is_back_the_next_time(folder: Path, share: set[str]) -> None:
    share.add("2.png")
    assert [file.relative for file in load(folder).files] == ["0.png", "1.png", "3.png"]
    share.clear()
    assert [file.relative for file in load(folder).files] == ["0.png", "1.png", "2.png", "3.png"]


def test_a_label_image_that_could_not_be_read_once_is_back_the_next_time(
    folder: Path, tmp_path: Path, share: set[str]
) -> None:
    (tmp_path / "labels").mkdir()
    for number, size in enumerate(SIZES):
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "labels" / f"{number}_mask.png")
    labels = LabelFolder.find(tmp_path / "labels", 2)
    share.add("1_mask.png")
    assert len(load_crop_images(find_images(folder), RGB, labels)) == 3
    share.clear()
    assert len(load_crop_images(find_images(folder), RGB, labels)) == 4


def test_a_link_to_a_file_that_is_gone_ends_no_training_with_labels(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for number, size in enumerate(SIZES):
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "labels" / f"{number}.png")
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(folder / "gone.png")
    images = load_crop_images(find_images(folder), RGB, LabelFolder.find(tmp_path / "labels", 2))
    assert [file.relative for file in images.files] == ["1.png", "2.png", "3.png"]


def test_a_damaged_file_is_looked_at_again_and_the_others_are_not(
    folder: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    load(folder)
    opened: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read(path))
    load(folder)
    assert opened == ["broken.jpg"]


def test_labels_are_not_interpolated(folder: Path) -> None:
    labels = LabelFolder.find(folder, 2)
    with pytest.raises(ValueError, match="images with labels keep their size"):
        load_crop_images(find_images(folder), RGB, labels, short_side=8)


def test_crops_are_parts_of_their_image_turned_or_mirrored(folder: Path) -> None:
    images, random = load(folder), np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        (crop,) = images.draw_crops([2], 8, random)
        windows = np.lib.stride_tricks.sliding_window_view(images.image(2), (8, 8, 3)).reshape(-1, 8, 8, 3)
        views = [np.rot90(view, turns) for view in (crop, crop[:, ::-1]) for turns in range(4)]
        hits = [number for number, view in enumerate(views) if (windows == view).all(axis=(1, 2, 3)).any()]
        assert hits
        seen.update(hits)
    assert seen == set(range(8))
    assert images.draw_crops([0, 1, 3], 16, random).shape == (3, 16, 16, 3)  # smaller ones are mirrored
    again = [images.draw_crops([0, 1], 8, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*again)
