"""Synthetic defects: visible, local, within range, repeatable, and as their names say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label

from pipelines.data.synthetic_defects import FLAT, KINDS, VISIBLE, blur, contrast, synthesize

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
    "blank page": np.pad(np.full((60, 60, 1), 255, np.uint8), ((0, 1), (0, 0), (0, 0))),
    "half black, half white": np.repeat(np.uint8([0, 255]), 32)[None, :, None].repeat(48, axis=0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IMAGES)
def test_a_defect_is_visible_local_and_within_range(name: str, kind: str) -> None:
    image = IMAGES[name]
    before = image.copy()
    for seed in SEEDS:
        damaged, mask, _ = synthesize(image, np.random.default_rng(seed), kind)
        np.testing.assert_array_equal(image, before)  # the good image stays good
        assert damaged.shape == image.shape
        assert damaged.dtype == image.dtype
        assert mask.shape == image.shape[:2]
        np.testing.assert_array_equal(mask, (damaged != image).any(axis=-1))
        change = np.abs(damaged[mask].astype(float) - image[mask]).max()
        assert change >= VISIBLE * FLAT * contrast(image)
        assert mask.size <= 64 or mask.mean() < 0.4


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
    drawn = [synthesize(IMAGES["grey"], rng).kind for _ in range(350)]
    assert {kind: drawn.count(kind) > 25 for kind in set(drawn)} == dict.fromkeys(KINDS, True)


@pytest.mark.parametrize("kind", KINDS)
def test_sixteen_bits_are_damaged_as_eight_are(kind: str) -> None:
    """The same picture at both depths: the same mask, up to rounding, and the same change in proportion."""
    eight = texture(120, 160, 1, np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    small, mask_small, _ = synthesize(eight, np.random.default_rng(3), kind)
    large, mask_large, _ = synthesize(sixteen, np.random.default_rng(3), kind)
    assert (mask_small <= mask_large).all()
    assert np.abs(large / 257 - small).max() <= 0.51


def plain(side: int) -> NDArray:
    """A flat surface with room on both sides: the margin has brighter and darker parts."""
    image = np.full((side, side, 1), 120, np.uint8)
    image[:4], image[-4:] = 240, 0
    return image


def changes(kind: str, image: NDArray) -> list[NDArray]:
    """What a kind of defect changes, in levels (H, W), one for each seed; spots in its place are left out."""
    drawn = [synthesize(image, np.random.default_rng(seed), kind) for seed in range(20)]
    return [d.image[..., 0].astype(int) - image[..., 0] for d in drawn if d.kind == kind]


@pytest.mark.parametrize("kind", ["scratch", "crack"])
def test_a_line_is_thin_long_and_in_one_piece(kind: str) -> None:
    for change in changes(kind, plain(256)):
        strong = np.abs(change) > np.abs(change).max() / 2
        core = ~binary_dilation(~strong, structure=np.ones((3, 3)), iterations=3)
        assert not core.any()  # nowhere 7 pixels wide
        rows, columns = np.nonzero(change)
        assert np.hypot(np.ptp(rows), np.ptp(columns)) > 5
        parts = np.sort(np.bincount(label(change, structure=np.ones((3, 3)))[0].ravel())[1:])
        assert parts[-1] > 0.7 * parts.sum()


@pytest.mark.parametrize("kind", ["scratch", "stain"])
def test_scratches_and_stains_come_dark_and_bright_and_antialiased(kind: str) -> None:
    found = [change[change != 0] for change in changes(kind, plain(128))]
    assert {int(np.sign(change.mean())) for change in found} == {-1, 1}
    assert max(len(np.unique(change)) for change in found) > 10


def test_cracks_are_dark_on_a_bright_surface() -> None:
    assert np.mean([change.sum() < 0 for change in changes("crack", plain(128))]) > 0.7


def test_a_dent_is_bright_on_one_side_and_dark_on_the_other() -> None:
    found = changes("dent", plain(128))
    whole = [change for change in found if not (change[[0, -1]].any() or change[:, [0, -1]].any())]
    assert len(whole) > 5
    for change in whole:
        assert change.max() > 0.5 * -change.min() > 0.2 * change.max()


def test_a_broken_edge_shows_the_values_of_both_sides_only() -> None:
    image = np.full((96, 96, 1), 60, np.uint8)
    image[:, 20::24] = image[:, 21::24] = image[:, 22::24] = 180
    found = changes("broken_edge", image)
    assert len(found) > 10
    assert {int(np.sign(change.sum())) for change in found} == {-1, 1}  # gaps and bridges
    assert all(((image[..., 0] + change >= 60) & (image[..., 0] + change <= 180)).all() for change in found)


def test_a_displaced_part_cannot_be_seen_on_a_flat_surface_and_becomes_a_spot() -> None:
    flat = np.full((64, 64, 1), 128, np.uint8)
    assert {synthesize(flat, np.random.default_rng(seed), "broken_edge").kind for seed in SEEDS} == {"stain"}


def test_sizes_span_a_decade() -> None:
    sizes = [np.ptp(np.nonzero(change)[0]) for change in changes("stain", plain(400))]
    assert min(sizes) < 20
    assert max(sizes) > 50


def test_blur_measures_the_sharpest_edges() -> None:
    step = np.repeat(np.float64([40, 200]), 64)[None, :, None].repeat(128, axis=0)
    assert blur(step.astype(np.uint8)) == 0
    for sigma in (1.0, 2.0):
        soft = gaussian_filter(step, (0, sigma, 0)).round().astype(np.uint8)
        assert blur(soft) == pytest.approx(sigma, rel=0.15)


def test_a_defect_is_not_sharper_than_the_image() -> None:
    sharp = texture(128, 128, 1, np.uint8)
    soft = gaussian_filter(sharp, (2, 2, 0))
    assert blur(soft) > 0.9
    for kind in ("scratch", "crack", "stain"):
        for change in changes(kind, soft):
            assert np.abs(np.diff(change, axis=1)).max() < 0.5 * np.abs(change).max() + 1


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
