"""Likelihoods against torch.distributions, against their own sums, and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions

from vaecore.likelihoods import (
    IMAGE_LIKELIHOODS,
    Bernoulli,
    Categorical,
    CategoricalLikelihood,
    DiscretisedLogistic,
    DiscretisedLogisticLikelihood,
    Gaussian,
    GaussianLikelihood,
    Laplace,
    SharedGaussianLikelihood,
)
from vaecore.likelihoods.gaussian import HALF_LEVEL


def image(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_gaussian_agrees_with_torch() -> None:
    y, mean, log_scale = image(2, 3, 4, 5), image(2, 3, 4, 5), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = distributions.Normal(mean, log_scale.exp()).log_prob(y)
    torch.testing.assert_close(Gaussian(mean, log_scale).log_prob(y), expected)


def test_laplace_agrees_with_torch() -> None:
    y, mean, log_scale = image(2, 3, 4, 5), image(2, 3, 4, 5), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    reference = distributions.Laplace(mean, log_scale.exp())
    found = Laplace(mean, log_scale)
    torch.testing.assert_close(found.log_prob(y), reference.log_prob(y))
    torch.testing.assert_close(found.stddev, reference.stddev)


def test_bernoulli_agrees_with_torch_even_for_extreme_logits() -> None:
    logits = torch.tensor([-200.0, -3.0, 0.0, 3.0, 200.0], dtype=torch.float64).view(1, 1, 1, 5)
    for value in (0.0, 1.0):
        y = torch.full_like(logits, value)
        expected = distributions.Bernoulli(logits=logits).log_prob(y)
        torch.testing.assert_close(Bernoulli(logits).log_prob(y), expected)


def test_categorical_agrees_with_torch_and_sums_to_one() -> None:
    logits = torch.randn(2, 6, 1, 4, 5, dtype=torch.float64)
    y = torch.randint(0, 6, (2, 1, 4, 5)).double()
    expected = distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(y)
    found = Categorical(logits)
    torch.testing.assert_close(found.log_prob(y), expected)
    total = sum(found.log_prob(torch.full_like(y, k)).exp() for k in range(6))
    torch.testing.assert_close(total, torch.ones_like(y))


def test_categorical_parameters_are_class_major() -> None:
    parameters = torch.zeros(1, 6, 1, 1)
    parameters[0, 2:4] = 9.0  # three classes, two channels: channels 2 and 3 belong to class 1
    assert CategoricalLikelihood(3)(parameters).mode.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("levels", [2, 8, 256, 65536])
@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.37, 1.0, 2.0])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0, 2.0])
def test_discretised_logistic_sums_to_one(levels: int, mean: float, log_scale: float) -> None:
    y = torch.linspace(0, 1, levels, dtype=torch.float64).view(1, 1, 1, -1)
    p = DiscretisedLogistic(torch.full_like(y, mean), torch.full_like(y, log_scale), levels)
    assert p.log_prob(y).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def test_discretised_logistic_in_single_precision_keeps_its_digits() -> None:
    """The identity used must not lose the small difference of two sigmoids that naive code loses."""
    y = torch.linspace(0, 1, 65536).view(1, 1, 1, -1)
    mean, log_scale = torch.full_like(y, 0.5), torch.full_like(y, -1.0)
    exact = DiscretisedLogistic(mean.double(), log_scale.double(), 65536).log_prob(y.double())
    found = DiscretisedLogistic(mean, log_scale, 65536).log_prob(y)
    assert (found.double() - exact).abs().max() < 1e-5


def test_continuous_densities_integrate_to_one() -> None:
    y = torch.linspace(-20, 20, 400_001, dtype=torch.float64).view(1, 1, 1, -1)
    for p in (Gaussian(torch.zeros_like(y), torch.zeros_like(y)), Laplace(torch.zeros_like(y), torch.zeros_like(y))):
        assert torch.trapezoid(p.log_prob(y).exp(), y).item() == pytest.approx(1.0, abs=1e-6)


def test_scale_is_bounded_by_half_a_level() -> None:
    parameters = torch.full((1, 2, 3, 3), -50.0)
    assert GaussianLikelihood()(parameters).stddev.min().item() == pytest.approx(HALF_LEVEL, rel=1e-5)
    wide = torch.full((1, 2, 3, 3), 1.0)
    assert GaussianLikelihood()(wide).stddev.max().item() == pytest.approx(math.e, rel=0.01)


def test_shared_scale_is_the_maximum_likelihood_one() -> None:
    likelihood = SharedGaussianLikelihood()
    mean, y = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
    likelihood.observe(y, likelihood(mean))
    best = likelihood(mean).log_prob(y).sum()
    for nudge in (-0.05, 0.05):
        other = Gaussian(mean, likelihood.log_scale + nudge).log_prob(y).sum()
        assert other < best


@pytest.mark.parametrize("name", IMAGE_LIKELIHOODS)
def test_every_likelihood_is_maximised_by_its_own_data(name: str) -> None:
    """Gradient ascent on the parameters moves the mean towards y: the sign and the wiring are right."""
    likelihood = IMAGE_LIKELIHOODS[name]()
    parameters = torch.zeros(1, likelihood.parameters_per_channel, 4, 4, requires_grad=True)
    y = (torch.rand(1, 1, 4, 4) > 0.5).float() if name == "bernoulli" else torch.full((1, 1, 4, 4), 0.8)
    y = (y * 255).round() / 255
    optimiser = torch.optim.Adam([parameters], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        loss = -likelihood(parameters).log_prob(y).sum()
        loss.backward()
        optimiser.step()
    assert (likelihood(parameters).mean - y).abs().max() < 0.05


@pytest.mark.parametrize("name", IMAGE_LIKELIHOODS)
def test_shapes(name: str) -> None:
    kind = IMAGE_LIKELIHOODS[name]
    likelihood = kind(levels=256) if kind is DiscretisedLogisticLikelihood else kind()
    p = likelihood(torch.randn(2, 3 * likelihood.parameters_per_channel, 4, 6))
    y = torch.zeros(2, 3, 4, 6)
    assert p.mean.shape == p.stddev.shape == p.log_prob(y).shape == y.shape
    assert (p.stddev > 0).all()
