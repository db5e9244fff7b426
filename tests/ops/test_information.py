"""The mutual information gap where it is known: latents that are factors, mixtures of them, or noise."""

from __future__ import annotations

import math

import pytest
import torch
from lectures.information import factor_entropy, mutual_information, mutual_information_gap
from torch import Tensor

from vaecore.bound import DiagonalGaussian

VALUES = 8


def grid() -> Tensor:
    """Two factors of eight values, all combinations, eight times."""
    return torch.cartesian_prod(torch.arange(VALUES), torch.arange(VALUES)).repeat(8, 1)


def measured(latents: Tensor, scale: float, factors: Tensor) -> tuple[Tensor, float]:
    mean = latents.double()[:, :, None, None]
    posterior = DiagonalGaussian(mean, torch.full_like(mean, math.log(scale)))
    information = mutual_information(posterior, factors, torch.Generator().manual_seed(0), samples=4000)
    return information, mutual_information_gap(information, factor_entropy(factors))[0]


def noise(columns: int) -> Tensor:
    return torch.randn(len(grid()), columns, generator=torch.Generator().manual_seed(1))


def test_latents_that_are_the_factors_know_all_of_them_and_nothing_else() -> None:
    factors = grid()
    information, gap = measured(factors.double(), 0.05, factors)
    torch.testing.assert_close(information, math.log(VALUES) * torch.eye(2).double(), atol=0.02, rtol=0)
    assert gap == pytest.approx(1, abs=0.02)


def test_turned_by_half_a_right_angle_no_latent_is_ahead() -> None:
    first, other = grid().double().unbind(1)
    latents = torch.stack([first + other, first - other], dim=1) / math.sqrt(2)
    information, gap = measured(latents, 0.05, grid())
    ways = torch.tensor([VALUES - abs(total) for total in range(1 - VALUES, VALUES)]) / VALUES**2  # of each sum
    expected = float(-(ways * ways.log()).sum()) - math.log(VALUES)
    torch.testing.assert_close(information, torch.full((2, 2), expected).double(), atol=0.02, rtol=0)
    assert gap == pytest.approx(0, abs=0.03)


def test_noise_knows_nothing() -> None:
    """Posteriors as wide as the prior, whose means differ by a little: bins of the means would find some."""
    information, gap = measured(0.03 * noise(3), 1.0, grid())
    assert information.abs().max() < 0.01
    assert gap == pytest.approx(0, abs=0.01)


def test_a_factor_that_two_latents_know_has_no_gap_and_unused_ones_change_nothing() -> None:
    first, other = grid().double().unbind(1)
    twice = torch.stack([first, first, other], dim=1)
    _, gap = measured(twice, 0.05, grid())
    assert gap == pytest.approx(0.5, abs=0.02)
    unused = torch.cat([grid().double(), 0 * noise(2)], dim=1)
    mean = unused[:, :, None, None]
    scale = torch.tensor([0.05, 0.05, 1.0, 1.0]).log()[None, :, None, None].expand_as(mean)
    information = mutual_information(
        DiagonalGaussian(mean, scale), grid(), torch.Generator().manual_seed(0), samples=4000
    )
    assert mutual_information_gap(information, factor_entropy(grid()))[0] == pytest.approx(1, abs=0.02)


def test_information_of_a_noisy_latent_is_that_of_its_channel() -> None:
    """One bit through Gaussian noise: its capacity at +-1 and scale 1, known from numerical integration."""
    factors = torch.arange(2).repeat(500)[:, None]
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    log_p = torch.stack([-0.5 * (z - m).square() - 0.5 * math.log(2 * math.pi) for m in (-1.0, 1.0)])
    mixture = torch.logsumexp(log_p, dim=0) - math.log(2)
    expected = torch.trapezoid((log_p.exp() * (log_p - mixture)).mean(dim=0), z).item()
    latent = (2.0 * factors - 1).double()
    posterior = DiagonalGaussian(latent[:, :, None, None], torch.zeros(1000, 1, 1, 1).double())
    found = mutual_information(posterior, factors, torch.Generator().manual_seed(0), samples=20_000)
    assert found.item() == pytest.approx(expected, abs=0.01)


def test_entropy_counts_how_often_values_occur() -> None:
    factors = torch.tensor([[0, 5], [0, 7], [0, 5], [1, 7]])
    expected = [-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), math.log(2)]
    torch.testing.assert_close(factor_entropy(factors), torch.tensor(expected).double())


def test_one_latent_has_nothing_to_be_ahead_of() -> None:
    with pytest.raises(ValueError, match="there is 1"):
        mutual_information_gap(torch.ones(1, 2), torch.ones(2))
