"""Error bars: brought to the errors that there are, channel by channel, and counted intervals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data.crop_images import load_crop_images
from pipelines.image_to_image.error_bars import SHARES, measure_error_bars
from pipelines.image_to_image.fit import CropRecipe, estimate_steps
from pipelines.image_to_image.restorer import FitRestorer
from pipelines.images import find_images
from pipelines.training.temperature import fit_temperature
from vaecore.likelihoods import Gaussian, GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.representations.image_format import ImageFormat

FACTORS = torch.tensor([0.5, 1.0, 2.0])
SIGMAS = torch.tensor([0.02, 0.04, 0.08])


def noisy(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another strength for each channel; the untrained network passes it on."""
    return y + SIGMAS[:, None, None] * torch.randn(y.shape, generator=generator)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FitRestorer:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (72, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    images = load_crop_images(find_images(folder), ImageFormat(channels=3, bit_depth=8))
    network = Restorer(channels=3, outputs=3, widths=(8, 12), blocks=(1, 1))
    split = {"train": range(6), "select": range(6, 8)}
    return FitRestorer(network, GaussianLikelihood(), images, split, noisy, CropRecipe(steps=4, batch=2, crop=16))


def test_the_factor_and_the_intervals_are_those_of_the_errors(module: FitRestorer) -> None:
    bars = measure_error_bars(module, range(8, 12))
    _, predicted = module.restore_middle(8, key=0)
    scale = (predicted.stddev[0] ** bars.exponent).mean(dim=(1, 2)).detach() * bars.factor
    torch.testing.assert_close(scale, SIGMAS, rtol=0.02, atol=0)
    for share, expected in zip(SHARES, (0.674, 0.994, 1.645, 1.960), strict=True):
        assert bars.intervals[str(share)] == pytest.approx(expected, rel=0.02)


class Foretold:
    """Errors are Gaussian, with a standard deviation that is a power of what was predicted."""

    def restore_middle(self, image: int, key: int) -> tuple[torch.Tensor, Gaussian]:
        """Scales differ a thousandfold within an image."""
        generator = torch.Generator().manual_seed(1000 * key + image)
        log_scale = -7 * torch.rand((1, 3, 80, 80), generator=generator)
        error = torch.randn(log_scale.shape, generator=generator) * FACTORS[:, None, None] * torch.exp(0.8 * log_scale)
        return error, Gaussian(torch.zeros_like(error), log_scale)


def test_errors_that_grow_less_than_their_scale_are_found_out() -> None:
    bars = measure_error_bars(Foretold(), range(5))
    assert bars.exponent == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(bars.factor, FACTORS, rtol=0.02, atol=0)
    for share, expected in zip(SHARES, (0.674, 0.994, 1.645, 1.960), strict=True):
        assert bars.intervals[str(share)] == pytest.approx(expected, rel=0.02)


def test_steps_are_counted_on_a_copy_of_the_network_alone(module: FitRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: value.clone() for name, value in module.model.state_dict().items()}

    def copied(*_: object) -> None:
        pytest.fail("the images are copied")

    monkeypatch.setattr(type(module.images), "__deepcopy__", copied, raising=False)
    short, long = estimate_steps(1, module, "cpu"), estimate_steps(30, module, "cpu")
    assert 1 <= short < long
    assert math.isfinite(long)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_few_labels_that_are_all_right_make_no_probability_certain() -> None:
    def of(count: int, wrong: int) -> float:
        labels = torch.arange(count) % 3
        logits = 3.0 * torch.nn.functional.one_hot(labels, 3)
        return fit_temperature(logits, (labels + (torch.arange(count) < wrong)) % 3)

    assert 0.6 < of(6, 0) < 1
    chance = math.exp(3) / (math.exp(3) + 2)  # of being right, as the logits say
    assert of(30_000, round(30_000 * (1 - chance))) == pytest.approx(1, abs=0.02)
    assert of(30_000, 9000) > 1.5
