"""Synthetic defects: visible, local, within range, repeatable, and as their names say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from pipelines.data.synthetic_defects import KINDS, LEAST_AREA, VISIBLE, contrast, scar, scratch, synthesize

SEEDS = range(12)


def texture(height: int, width: int, channels: int, dtype: type, seed: int = 0) -> NDArray:
    """A brushed surface: smooth shading, stripes and some noise, over 60 % of the range."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    grey = 0.5 + 0.2 * np.sin(3 * y + 2) + 0.05 * np.sin(80 * x) + 0.03 * rng.standard_normal((height, width))
    tint = np.linspace(0.8, 1.0, channels)
    return (np.clip(grey[..., None] * tint, 0, 1) * np.iinfo(dtype).max).astype(dtype)


IMAGES = {
    "grey": texture(120, 160, 1, np.uint8),
    "colour": texture(90, 70, 3, np.uint8),
    "16 bits": texture(120, 100, 1, np.uint16),
    "12 bits in 16": texture(100, 120, 3, np.uint16) // 16,
    "flat": np.full((64, 64, 1), 128, np.uint8),
    "black": np.zeros((64, 64, 3), np.uint8),
    "white": np.full((64, 64, 1), 65535, np.uint16),
    "tiny": texture(8, 8, 1, np.uint8),
    "tiny flat": np.full((8, 8, 3), 255, np.uint8),
    "one pixel": np.full((1, 1, 1), 7, np.uint8),
    "a line": texture(1, 300, 1, np.uint8),
    "half black, half white": np.repeat(np.uint8([0, 255]), 32)[None, :, None].repeat(48, axis=0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IMAGES)
def test_a_defect_is_visible_local_and_within_range(name: str, kind: str) -> None:
    image = IMAGES[name]
    before = image.copy()
    for seed in SEEDS:
        damaged, mask = KINDS[kind](image, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, before)  # the good image stays good
        assert damaged.shape == image.shape
        assert damaged.dtype == image.dtype
        assert mask.shape == image.shape[:2]
        np.testing.assert_array_equal(mask, (damaged != image).any(axis=-1))
        assert mask.sum() >= max(1, LEAST_AREA * mask.size)
        change = np.abs(damaged[mask].astype(float) - image[mask]).mean()
        assert change >= VISIBLE * contrast(image)
        assert mask.size <= 64 or mask.mean() < 0.25


@pytest.mark.parametrize("name", ["grey", "16 bits", "tiny"])
def test_the_generator_decides_everything(name: str) -> None:
    image = IMAGES[name]
    first, again = (synthesize(image, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.kind == again.kind
    generator = np.random.default_rng(5)
    assert any((synthesize(image, generator).image != first.image).any() for _ in range(2))


def test_every_kind_is_drawn_about_as_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [synthesize(IMAGES["tiny"], rng).kind for _ in range(400)]
    assert {kind: drawn.count(kind) > 60 for kind in set(drawn)} == dict.fromkeys(KINDS, True)


def test_sixteen_bits_are_damaged_as_eight_are() -> None:
    """The same picture at both depths: the same mask, up to rounding, and the same change in proportion."""
    eight = texture(120, 160, 1, np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    for kind in KINDS.values():
        small, mask_small = kind(eight, np.random.default_rng(3))
        large, mask_large = kind(sixteen, np.random.default_rng(3))
        assert (mask_small <= mask_large).all()
        assert np.abs(large / 257 - small).max() <= 0.51


def test_a_scratch_is_thin_and_in_one_piece() -> None:
    image = np.full((256, 256, 1), 120, np.uint8)
    for seed in SEEDS:
        _, mask = scratch(image, np.random.default_rng(seed))
        assert label(mask, structure=np.ones((3, 3)))[1] <= 2
        core = ~binary_dilation(~mask, structure=np.ones((3, 3)), iterations=3)
        assert not core.any()  # nowhere 7 pixels wide
        rows, columns = np.nonzero(mask)
        assert np.hypot(np.ptp(rows), np.ptp(columns)) > 20


def test_scratches_come_dark_and_bright_and_antialiased() -> None:
    image = np.full((128, 128, 1), 120, np.uint8)
    signs, levels = set(), 0
    for seed in range(20):
        damaged, mask = scratch(image, np.random.default_rng(seed))
        change = damaged[mask].astype(int) - 120
        signs.add(int(np.sign(change.mean())))
        levels = max(levels, len(np.unique(change)))
    assert signs == {-1, 1}
    assert levels > 10


def test_a_scar_is_long() -> None:
    image = texture(256, 256, 1, np.uint8)
    for seed in SEEDS:
        _, mask = scar(image, np.random.default_rng(seed))
        points = np.stack(np.nonzero(mask)).astype(float)
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(points)))
        assert spread[1] > 2.5 * spread[0]


def test_strength_follows_the_image_and_not_the_range() -> None:
    """A dim 12-bit image gets dim defects: none reaches the far end of the 16-bit range."""
    image = IMAGES["12 bits in 16"]
    rng = np.random.default_rng(0)
    assert max(int(synthesize(image, rng).image.max()) for _ in range(40)) < 8192


def test_a_bilevel_image_stays_bilevel() -> None:
    rng = np.random.default_rng(1)
    board = np.zeros((128, 128, 1), np.uint8)
    board[:, 16::24] = board[:, 17::24] = board[60:68] = 255
    for _ in range(40):
        assert set(np.unique(synthesize(board, rng).image)) <= {0, 255}


def test_defects_lie_anywhere() -> None:
    rng = np.random.default_rng(2)
    hits = np.zeros((40, 40))
    image = texture(40, 40, 1, np.uint8)
    for _ in range(400):
        hits += synthesize(image, rng).mask
    assert (hits.reshape(5, 8, 5, 8).sum(axis=(1, 3)) > 0).all()
