"""Pixels as y: resized, on a grid of levels, or blind to the exposure."""

from __future__ import annotations

import pytest
import torch

from vaecore.representations import Pixels
from vaecore.representations.image_format import resize


def test_pixels_are_the_resized_image_on_the_grid_of_levels() -> None:
    image = torch.rand(2, 3, 50, 40)
    torch.testing.assert_close(Pixels(channels=3, size=(16, 24))(image), resize(image, (16, 24)))
    levels = Pixels(channels=3, size=(16, 24), levels=255)(image) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert Pixels(channels=3, size=(16, 24)).sum_by_place(torch.ones(2, 3, 16, 24)).unique().item() == 3


def test_standardised_pixels_do_not_know_the_exposure() -> None:
    pixels = Pixels(channels=1, size=(16, 24), standardise=True)
    image = torch.rand(3, 1, 50, 40)
    y = pixels(image)
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.full((3,), 0.5))
    torch.testing.assert_close(y.std(dim=(1, 2, 3), correction=0), torch.full((3,), 0.2))
    torch.testing.assert_close(pixels(0.3 * image + 0.1), y)


def test_a_standardised_picture_is_drawn_with_its_own_exposure() -> None:
    pixels = Pixels(channels=3, size=(16, 24), standardise=True)
    image = 0.2 + 0.3 * torch.rand(2, 3, 16, 24)
    mean, stddev = pixels.draw(pixels(image), torch.full_like(image, 0.2), image)
    torch.testing.assert_close(mean, image)
    torch.testing.assert_close(stddev[:, 0, 0, 0], image.std(dim=(1, 2, 3), correction=0))
    assert torch.isfinite(pixels(torch.full((1, 3, 20, 20), 0.7))).all()  # flat: nothing to divide by
    with pytest.raises(ValueError, match="a standardised image has none"):
        Pixels(channels=1, size=(8, 8), levels=255, standardise=True)
