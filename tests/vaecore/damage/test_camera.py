from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from vaecore.damage.camera import (
    SHOT,
    add_sensor_noise,
    camera_noise,
    demosaic,
    develop,
    draw_cameras,
    undevelop,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    pixels = torch.from_numpy(skimage.data.astronaut()[:128, 150:278].copy())
    return pixels.permute(2, 0, 1)[None].float() / 255


def flat(value: float, side: int = 256, count: int = 1) -> Tensor:
    return torch.full((count, 3, side, side), value)


def test_no_noise_leaves_a_picture_as_it_is(photograph):
    assert torch.equal(camera_noise(photograph, torch.zeros(1), chance()), photograph)


def test_developing_the_light_of_a_picture_gives_it_back_but_for_what_the_mosaic_loses():
    """A flat picture loses nothing: tone curve, gamma, colours and white balance undo each other."""
    colour = torch.tensor([0.45, 0.5, 0.4])[None, :, None, None].expand(8, -1, 32, 32)
    cameras = draw_cameras(8, chance())
    assert torch.allclose(develop(undevelop(colour, cameras), cameras), colour, atol=0.04)


def test_the_mosaic_keeps_the_pixels_that_it_lets_pass_and_flat_colours():
    colours = torch.rand(4, 3, 1, 1, generator=chance()).expand(-1, -1, 16, 16)
    corner = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert torch.allclose(demosaic(colours, corner, torch.ones(4, 1, 1, 1)), colours, atol=1e-6)
    picture = torch.rand(1, 3, 16, 16, generator=chance(1))
    seen = demosaic(picture, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 1, 1, 1))
    assert torch.allclose(seen[:, 0, ::2, ::2], picture[:, 0, ::2, ::2], atol=1e-6)
    assert torch.allclose(seen[:, 1, ::2, 1::2], picture[:, 1, ::2, 1::2], atol=1e-6)
    assert torch.allclose(seen[:, 2, 1::2, 1::2], picture[:, 2, 1::2, 1::2], atol=1e-6)


def test_demosaicing_along_edges_is_as_near_as_a_published_method(photograph):
    """Malvar's filters gain several dB over bilinear ones on photographs (their table 1: 5.8 dB on average)."""
    corner = torch.zeros(1, 2, dtype=torch.long)
    errors = [
        float(
            (demosaic(photograph, corner, torch.full((1, 1, 1, 1), sharp)) - photograph)[..., 4:-4, 4:-4]
            .square()
            .mean()
        )
        for sharp in (0.0, 1.0)
    ]
    assert 10 * np.log10(errors[0] / errors[1]) > 1.0


def test_the_noise_of_a_sensor_has_the_variance_of_photons():
    light = flat(0.2, side=400)
    noisy = add_sensor_noise(light, torch.full((1,), 0.5), chance())
    assert float(noisy.mean()) == pytest.approx(0.2, abs=1e-3)
    assert float(noisy.var()) == pytest.approx(SHOT * 0.2 / 16, rel=0.05)


def test_noise_grows_with_the_strength_and_is_correlated_between_neighbours():
    y = flat(0.5, side=96, count=12)
    spread = []
    for strength in (0.2, 0.5, 1.0):
        noise = camera_noise(y, torch.full((12,), strength), chance(3)) - y
        spread.append(float(noise.std()))
    assert spread[0] < spread[1] / 3 < spread[2] / 6
    together = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert 0.2 < float(together) < 0.9


def test_equal_chance_gives_equal_noise_and_each_picture_has_a_camera_of_its_own(photograph):
    two = photograph.expand(2, -1, -1, -1)
    first, second = (camera_noise(two, torch.full((2,), 0.5), chance(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    cameras = draw_cameras(16, chance())
    assert torch.allclose(cameras.colours.sum(dim=2), torch.ones(16, 3), atol=1e-5)
    assert len({tuple(each.flatten().tolist()) for each in cameras.gains}) == 16


def test_grey_stays_grey_on_average():
    y = flat(0.5, side=256, count=6)
    noise = camera_noise(y, torch.full((6,), 0.4), chance(2)) - y
    assert float(noise.mean(dim=(2, 3)).abs().max()) < 0.01
