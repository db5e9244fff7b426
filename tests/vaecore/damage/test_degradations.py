"""Damage of known strength, equal for equal generators, against Pillow and SciPy."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vaecore.damage.degradations import gaussian_noise, jpeg, poisson_noise, smaller, speckle


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("damage", [gaussian_noise, poisson_noise, speckle])
def test_noise_has_the_strength_asked_at_middle_grey(damage: Callable[..., Tensor]) -> None:
    y = torch.full((2, 3, 200, 200), 0.5)
    noise = damage(y, torch.tensor([10.0, 40.0]), generator()) - y
    assert noise[0].std() * 255 == pytest.approx(10, rel=0.02)
    assert noise[1].std() * 255 == pytest.approx(40, rel=0.02)
    assert abs(noise.mean()) < 2e-3
    assert torch.equal(damage(y, 25.0, generator(1)), damage(y, 25.0, generator(1)))
    assert not torch.equal(damage(y, 25.0, generator(1)), damage(y, 25.0, generator(2)))


def test_noise_depends_on_brightness_as_its_physics_says() -> None:
    dark, bright = torch.full((1, 1, 300, 300), 0.125), torch.full((1, 1, 300, 300), 0.5)
    photons = poisson_noise(dark, 20.0, generator()).std() / poisson_noise(bright, 20.0, generator()).std()
    grains = speckle(dark, 20.0, generator()).std() / speckle(bright, 20.0, generator()).std()
    assert photons == pytest.approx(0.5, rel=0.03)
    assert grains == pytest.approx(0.25, rel=0.03)
    assert gaussian_noise(dark, 50.0, generator()).min() < -0.2  # not clipped


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillow_s(channels: int) -> None:
    y = torch.randint(0, 256, (2, channels, 40, 33), generator=generator()).float() / 255
    found = jpeg(y, 30)
    pixels = (y[1] * 255).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "jpeg", quality=30)
    expected = np.asarray(Image.open(buffer)).reshape(40, 33, channels)
    np.testing.assert_allclose(found[1].permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_smaller_is_pillow_s_antialiased_bicubic(scale: int) -> None:
    y = torch.randint(0, 256, (1, 3, 48, 60), generator=generator()).float() / 255
    found = (smaller(y, scale)[0] * 255).permute(1, 2, 0).numpy()
    picture = Image.fromarray((y[0] * 255).byte().permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((60 // scale, 48 // scale), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(found - expected).max() <= 2  # Pillow rounds and clips between its two passes
    assert np.abs(found - expected).mean() < 0.3
