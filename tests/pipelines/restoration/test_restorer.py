"""One image through a model that mends: any size and channels, in tiles that leave no seams, in little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import ImageError
from pipelines.images.image import Image
from pipelines.models.model_file import ModelFile
from pipelines.models.session import RestoringSession
from pipelines.restoration import restorer
from pipelines.restoration.restorer import BLOCK


def pixels(height: int = 33, width: int = 47, channels: int = 3, largest: int = 255) -> np.ndarray:
    kind = np.uint8 if largest <= 255 else np.uint16
    return np.random.default_rng(0).integers(0, largest + 1, (height, width, channels), dtype=kind)


def image_of(samples: np.ndarray) -> Image:
    return Image(samples, None, 8 * samples.itemsize, "0" * 64, None, None, None)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (321, 481), (4097, 1)])
def test_odd_sizes_come_back_at_their_size(other: ModelFile, size: tuple[int, int]) -> None:
    mended = restorer.restore_image(RestoringSession(other, device="cpu", threads=1), image_of(pixels(*size)))
    assert mended.pixels.shape == (*size, 3)
    assert mended.blocks.shape == (-(-size[0] // BLOCK), -(-size[1] // BLOCK))
    assert np.isfinite(mended.blocks).all()


@pytest.mark.parametrize("side", [8, 50, 64, 200])
def test_tiles_leave_no_seams(other: ModelFile, side: int) -> None:
    session = RestoringSession(other, device="cpu", threads=1)
    image = image_of(pixels(211, 167, largest=65535))
    whole, tiled = (
        restorer.restore_image(session, image, side=10_000),
        restorer.restore_image(session, image, side=side),
    )
    assert np.abs(whole.pixels.astype(int) - tiled.pixels.astype(int)).max() <= 65535 // 255 // 50  # of 16 bits
    assert tiled.mean_scale == pytest.approx(whole.mean_scale, rel=1e-4)
    np.testing.assert_allclose(tiled.blocks, whole.blocks, rtol=1e-3)


def test_the_mean_error_bar_is_the_mean_of_all_pixels(other: ModelFile) -> None:
    session, image = RestoringSession(other, device="cpu", threads=1), pixels(48, 72)
    mended = restorer.restore_image(session, image_of(image))
    _, scale = session.run(image[None].astype(np.float32) / 255)
    assert mended.mean_scale == pytest.approx(float(scale.mean()), rel=1e-5)
    np.testing.assert_allclose(mended.blocks[0, 0], scale[0, :BLOCK, :BLOCK].mean(), rtol=1e-5)


@pytest.mark.parametrize("largest", [255, 65535])
def test_strength_mixes_the_image_and_the_result(other: ModelFile, largest: int) -> None:
    session, image = RestoringSession(other, device="cpu", threads=1), pixels(40, 56, largest=largest)
    whole, half, none = (
        restorer.restore_image(session, image_of(image), strength=strength, side=32) for strength in (1.0, 0.5, 0.0)
    )
    np.testing.assert_array_equal(none.pixels, image)
    mean = (image.astype(float) + whole.pixels) / 2
    inside = (whole.pixels > 0) & (whole.pixels < largest)  # elsewhere the result was clipped
    assert np.abs(half.pixels - mean)[inside].max() <= 1
    assert whole.mean_scale < half.mean_scale < none.mean_scale  # what is left in may be damage


def test_the_error_bar_of_a_mixture_holds_what_was_left_in(export_mender, tmp_path: Path) -> None:
    """The root mean square of error bar and difference, as for two independent errors."""
    file = export_mender(tmp_path / "m")
    session, image = RestoringSession(file, device="cpu", threads=1), pixels(48, 72)
    restored, scale = session.run(image[None].astype(np.float32) / 255)
    expected = np.sqrt(scale**2 + (0.25 * (image / 255 - restored)) ** 2).mean()
    found = restorer.restore_image(session, image_of(image), strength=0.75)
    assert found.mean_scale == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("takes", "has"), [(3, 1), (1, 3)])
def test_channels_that_the_model_does_not_have(export_mender, tmp_path: Path, takes: int, has: int) -> None:
    session = RestoringSession(export_mender(tmp_path / "m", channels=takes, identity=True), device="cpu", threads=1)
    image = pixels(channels=has)
    mended = restorer.restore_image(session, image_of(image))
    np.testing.assert_array_equal(mended.pixels, image)
    assert "mended" in mended.notes[0]


def test_a_tile_that_does_not_fit_is_tried_smaller(other: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    session, image = RestoringSession(other, device="cpu", threads=1), image_of(pixels(300, 300))
    expected, run, limit, sides = restorer.restore_image(session, image), session.run, 200 * 200, []

    def scarce(tile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if tile.shape[1] * tile.shape[2] > limit:
            raise MemoryError
        sides.append(tile.shape[1])
        return run(tile)

    monkeypatch.setattr(session, "run", scarce)
    found = restorer.restore_image(session, image)
    assert len(sides) > 1
    assert np.abs(found.pixels.astype(int) - expected.pixels.astype(int)).max() <= 1
    limit = 10
    with pytest.raises(ImageError, match="does not fit into memory"):
        restorer.restore_image(session, image)
