"""Test images are known by their pixels, whatever file they come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.data.known_images import DIGITS, check_leakage, digests_of_tested, known_benchmarks, remember_test_images
from pipelines.errors import DataError
from pipelines.images import find_images
from pipelines.images.convert import pixel_digest
from vaecore.representations.image_format import ImageFormat


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def load(folder: Path, bit_depth: int = 8, channels: int = 3) -> CropImages:
    return load_crop_images(find_images(folder), ImageFormat(channels=channels, bit_depth=bit_depth))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "clean"
    made.mkdir()
    for seed in range(3):
        Image.fromarray(image(seed)).save(made / f"{seed}.png")
    return made


def test_the_list_that_ships() -> None:
    known = known_benchmarks()
    assert {name: sum(each == name for each in known.values()) for name in set(known.values())} == {
        "CBSD68": 136, "Set5": 10, "Set12": 24, "Set14": 28,
    }  # fmt: skip
    assert all(len(digest) == DIGITS for digest in known)


@pytest.mark.parametrize(("bit_depth", "channels"), [(8, 3), (16, 3), (8, 1)])
def test_an_image_of_a_known_benchmark_stops_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bit_depth: int, channels: int
) -> None:
    check_leakage(load(folder, bit_depth, channels))
    rgb = image(1)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))[..., None]
    known = {pixel_digest(each)[:DIGITS]: "CBSD68" for each in (rgb, grey)}
    monkeypatch.setattr("pipelines.data.known_images.known_benchmarks", lambda: known)
    with pytest.raises(DataError, match=r"training images are test images: 1 of CBSD68 \(1\.png\)"):
        check_leakage(load(folder, bit_depth, channels))


def test_a_folder_that_was_evaluated_is_remembered_whatever_its_files_are_called(folder: Path, tmp_path: Path) -> None:
    remember_test_images(tmp_path / "test", [digest for each in (0, 2, 9) for digest in digests_of_tested(image(each))])
    with pytest.raises(DataError, match=r"2 of the test images in .*test \(0\.png, 2\.png\)"):
        check_leakage(load(folder))
    remember_test_images(tmp_path / "test", digests_of_tested(image(9)))  # evaluated again, on others
    check_leakage(load(folder))


def test_size_and_depth_belong_to_the_digest() -> None:
    flat = np.zeros((2, 6, 1), np.uint8)
    assert pixel_digest(flat) != pixel_digest(flat.reshape(3, 4, 1))
    assert pixel_digest(image(0)) == pixel_digest(image(0).astype(np.uint16) * 257)
    assert pixel_digest(image(0)) != pixel_digest(image(0).astype(np.uint16) * 256)
