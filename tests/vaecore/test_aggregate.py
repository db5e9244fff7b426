"""The aggregate posterior against closed forms: of one Gaussian, of the prior itself, of holes and of outliers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vaecore.aggregate import aggregate_kl, aggregate_log_density, even_posterior
from vaecore.bound import DiagonalGaussian
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ClassPrior, ConvVAE, TwoLevelVAE
from vaecore.networks.blocks import StandardPrior
from vaecore.priors import MixturePrior
from vaecore.priors.flow import FlowPrior


class OnlyAPrior(StandardPrior):
    """A model as far as this needs one."""

    def __init__(self, *latent_shape: int) -> None:
        self.latent_shape = latent_shape


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_of_one_gaussian_both_divergences_have_closed_forms() -> None:
    mean, scale = torch.tensor([0.5, -1.0, 0.2])[:, None, None], torch.tensor([0.7, 0.9, 0.5])[:, None, None]
    one = DiagonalGaussian(mean, scale.log())
    many = DiagonalGaussian(mean.expand(40, -1, -1, -1), scale.log().expand(40, -1, -1, -1))
    prior = DiagonalGaussian(torch.zeros_like(mean), torch.zeros_like(mean))
    found = aggregate_kl(OnlyAPrior(3, 1, 1), many, generator(), samples=40_000)
    for estimate, exact in ((found.forward, one.kl(prior)), (found.reverse, prior.kl(one))):
        assert 0 < estimate.error < 0.05
        assert estimate.value == pytest.approx(float(exact.sum()), abs=4 * estimate.error)


def test_the_density_is_the_mean_of_the_posteriors() -> None:
    torch.manual_seed(0)
    posterior = DiagonalGaussian(100 + torch.randn(5, 2, 3, 1), torch.randn(5, 2, 3, 1))
    z = 100 + torch.randn(7, 2, 3, 1)
    each = torch.stack([posterior.log_density(one.expand(5, -1, -1, -1)) for one in z])
    expected = torch.logsumexp(each, dim=1) - math.log(5)
    torch.testing.assert_close(aggregate_log_density(posterior, z).float(), expected, rtol=1e-4, atol=1e-3)


def test_images_that_fill_the_prior_are_not_apart_from_it() -> None:
    posterior = DiagonalGaussian(torch.zeros(3000, 1, 1, 1), torch.full((3000, 1, 1, 1), math.log(0.6)))
    even = even_posterior(OnlyAPrior(1, 1, 1), posterior, generator())
    assert float(even.mean.std()) == pytest.approx(0.8, abs=0.04)
    found = aggregate_kl(OnlyAPrior(1, 1, 1), even, generator())
    assert max(abs(found.forward.value), abs(found.reverse.value)) < 0.02


def test_few_images_tell_holes_also_where_they_fill_the_prior() -> None:
    narrow = DiagonalGaussian(torch.zeros(20, 2, 1, 1), torch.full((20, 2, 1, 1), math.log(0.05)))
    even = even_posterior(OnlyAPrior(2, 1, 1), narrow, generator())
    found = aggregate_kl(OnlyAPrior(2, 1, 1), even, generator())
    rate = float(even.kl(DiagonalGaussian(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))).sum(dim=(1, 2, 3)).mean())
    assert rate - math.log(20) - 0.05 < found.forward.value < rate
    assert found.reverse.value > 5


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return ConvVAE(channels=1, size=(16, 16), likelihood=GaussianLikelihood(), latent_channels=2, stages=2, width=width)


def test_a_prior_that_is_the_aggregate_itself_is_not_apart_from_it() -> None:
    """A mixture of as many components, in one cell: equal to the last digit."""
    torch.manual_seed(0)
    inner = ConvVAE(
        channels=1, size=(16, 16), likelihood=GaussianLikelihood(), latent_channels=2, stages=2, latent_grid=False
    )
    model = MixturePrior(inner, components=6)
    with torch.no_grad():
        model.log_scale.uniform_(-1, 0)
    own = model.mixture()
    posterior = DiagonalGaussian(own.mean[:, :, None, None], own.log_scale[:, :, None, None])
    found = aggregate_kl(model, posterior, generator(), samples=500)
    assert max(abs(found.forward.value), abs(found.reverse.value)) < 1e-4


@pytest.mark.parametrize("kind", ["mixture", "classes"])
@torch.no_grad()
def test_images_that_fill_a_prior_of_many_modes_are_not_apart_from_it(kind: str) -> None:
    torch.manual_seed(0)
    inner = ConvVAE(
        channels=1, size=(8, 8), likelihood=GaussianLikelihood(), latent_channels=4, stages=1, latent_grid=False
    )
    model = MixturePrior(inner, 5) if kind == "mixture" else ClassPrior(inner, 5)
    model.mean.normal_(std=3)
    model.log_scale.fill_(math.log(0.5))
    posterior = DiagonalGaussian(torch.zeros(4000, 4, 1, 1), torch.full((4000, 4, 1, 1), math.log(0.4)))
    even = even_posterior(model, posterior, generator())
    assert even is not None
    found = aggregate_kl(model, even, generator())
    assert max(abs(found.forward.value), abs(found.reverse.value)) < 0.1


def test_of_other_priors_it_is_not_known_what_filling_them_is_like() -> None:
    posterior = DiagonalGaussian(torch.zeros(3, 2, 1, 1), torch.zeros(3, 2, 1, 1))
    assert even_posterior(FlowPrior(network()), posterior, generator()) is None
    assert even_posterior(TwoLevelVAE(network()), posterior, generator()) is None


@pytest.mark.parametrize("wrap", [lambda model: model, TwoLevelVAE, FlowPrior, lambda model: MixturePrior(model, 3)])
def test_every_prior_that_can_be_drawn_from_can_be_compared(wrap: object) -> None:
    model = wrap(network())
    with torch.no_grad():
        posterior = model.posterior(torch.rand(12, 1, 16, 16))
    found = aggregate_kl(model, posterior, generator(), samples=200)
    assert all(math.isfinite(number) for estimate in found for number in estimate)
    assert found.forward.value > 0
