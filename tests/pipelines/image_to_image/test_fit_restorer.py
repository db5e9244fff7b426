"""Training an image-to-image network: it learns, a killed run gives the same weights, small images are taken."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.image_to_image.fit import CropRecipe
from pipelines.image_to_image.restorer import FitRestorer
from pipelines.images import find_images
from pipelines.training.loop import run
from vaecore.damage.degradations import gaussian_noise
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.representations.image_format import ImageFormat

GREY = ImageFormat(channels=1, bit_depth=8)
STEPS = 60


class KilledError(Exception):
    """Stands for a kill."""


def module(images: CropImages) -> FitRestorer:
    torch.manual_seed(0)
    network = Restorer(channels=1, outputs=1, widths=(8, 12), blocks=(1, 1))
    split = {"train": range(4, len(images)), "select": range(4)}
    recipe = CropRecipe(steps=STEPS, batch=4, crop=32, learning_rate=5e-3)
    damage = partial(_noisy, sigma=25.0)
    return FitRestorer(network, GaussianLikelihood(), images, split, damage, recipe)


def _noisy(y: torch.Tensor, generator: torch.Generator, sigma: float) -> torch.Tensor:
    return gaussian_noise(y, sigma, generator)


@pytest.fixture
def images() -> CropImages:
    return load_crop_images(find_images(MAGNETIC_TILE / "train" / "good")[:16], GREY)


def test_it_learns_and_a_killed_run_gives_the_same_weights(images: CropImages, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    whole = module(images)
    assert run(whole, folder=tmp_path / "a", device="cpu", on_check=lambda _, figures: seen.append(figures)) == STEPS
    noisy = 20 * torch.log10(torch.tensor(255 / 25))
    assert seen[-1]["select_psnr"] > float(noisy) + 3
    assert seen[-1]["select_log_likelihood"] > seen[0]["select_log_likelihood"] + 0.5

    def kill(step: int, _: dict[str, float]) -> None:
        if step >= STEPS // 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(module(images), folder=tmp_path / "b", device="cpu", on_check=kill)
    again = module(images)
    run(again, folder=tmp_path / "b", device="cpu", on_check=lambda *_: None)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_some_crops_of_colour_are_grey_with_a_grey_image_s_noise(tmp_path: Path) -> None:
    network = Restorer(channels=3, outputs=3, widths=(8, 12), blocks=(1, 1))
    images = load_crop_images(find_images(MAGNETIC_TILE / "train" / "good")[:8], ImageFormat(channels=3, bit_depth=8))
    split = {"train": range(4, 8), "select": range(4)}
    recipe = CropRecipe(steps=1, batch=8, crop=16)
    fit = FitRestorer(network, GaussianLikelihood(), images, split, partial(_noisy, sigma=25.0), recipe)
    colour = torch.rand((48, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    y, c = fit.damage_crops(colour, fit.make_generator(0))
    assert y.shape == c.shape == colour.shape
    for each in (y, c):
        grey = (each == each[:, :1]).flatten(1).all(dim=1)
        assert 4 <= grey.sum() <= 24  # a fourth of 48 is expected
    assert float((c - y).std()) == pytest.approx(25 / 255, rel=0.05)
    assert torch.equal(y[~grey], colour[~grey])
    held = [fit.damage_middle(0, key) for key in range(4)]  # tiles are grey anyway: their noise tells
    assert [bool((c == c[:, :1]).all()) for _, c in held] == [True, False, False, False]
