"""Tiles: every pixel once, no seams whatever the sizes, odd images at their exact size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.images.tiles import cut, run_in_tiles
from vaecore.networks import Restorer


def restored(network: Restorer, image: np.ndarray, side: int) -> np.ndarray:
    out = np.full((image.shape[0] * network.upscale, image.shape[1] * network.upscale, 3), np.nan, np.float32)

    def run(tile: np.ndarray, seen: tuple[slice, slice]) -> tuple[np.ndarray]:
        assert tile.shape[1] - network.multiple < seen[0].stop - seen[0].start <= tile.shape[1]
        with torch.inference_mode():
            mean = network(torch.from_numpy(tile).permute(0, 3, 1, 2))[:, :3]
        return (mean.permute(0, 2, 3, 1).numpy(),)

    def keep(place: tuple[slice, slice], values: tuple[np.ndarray, ...]) -> None:
        assert np.isnan(out[place]).all()  # every pixel once
        out[place] = values[0]

    run_in_tiles(
        image, run, keep, to_float=lambda part: part.astype(np.float32) / 255,
        side=side, halo=network.halo, multiple=network.multiple, upscale=network.upscale,
    )  # fmt: skip
    assert not np.isnan(out).any()
    return out


def network(upscale: int) -> Restorer:
    torch.manual_seed(0)
    made = Restorer(channels=3, outputs=3, widths=(8, 12, 16), blocks=(1, 1, 1), upscale=upscale)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    return made.eval()


@pytest.mark.parametrize("seed", range(6))
def test_tiles_and_the_whole_image_are_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width, side = random.integers(1, 260), random.integers(1, 260), random.integers(1, 200)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    made = network(1 + seed % 3)
    np.testing.assert_allclose(restored(made, image, side), restored(made, image, 10_000), atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (4097, 1), (321, 481)])
def test_odd_sizes_come_back_at_their_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert restored(network(2), image, 256).shape == (2 * size[0], 2 * size[1], 3)


def test_tiles_begin_on_multiples_and_see_their_halo() -> None:
    for tile in cut(96, 160, side=50, halo=24, multiple=8):
        for kept, seen, end in zip(tile.kept, tile.seen, (96, 160), strict=True):
            assert kept.start % 8 == seen.start % 8 == 0
            assert seen.start == max(0, kept.start - 24)
            assert seen.stop == min(end, kept.stop + 24)
    with pytest.raises(ValueError, match="97 x 160 with a halo of 24 is not in multiples of 8"):
        next(cut(97, 160, side=50, halo=24, multiple=8))
