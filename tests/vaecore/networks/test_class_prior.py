"""The prior of each class: a bound that holds, Bayes' rule, and what labels change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vaecore.bound import DiagonalGaussian, bound_maps, elbo, iwae
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ClassPrior, ConvVAE
from vaecore.networks.class_prior import ClassMixture, label_loss

LATENTS, CLASSES = 3, 4


@pytest.fixture
def model() -> ClassPrior:
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1, size=(8, 8), likelihood=GaussianLikelihood(), latent_channels=LATENTS, latent_grid=False, width=4,
        stages=1,
    )  # fmt: skip
    made = ClassPrior(network, CLASSES)
    torch.nn.init.normal_(made.mean)
    torch.nn.init.normal_(made.log_scale, std=0.3)
    made.set_shares(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    return made.eval()


@pytest.fixture
def y() -> Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def noise_for(y: Tensor, samples: int) -> Tensor:
    return torch.randn(len(y), samples, LATENTS, 1, 1, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_the_bound_is_that_of_image_and_class_together(model: ClassPrior, y: Tensor) -> None:
    """log sum_c p(c) exp(bound on log p(y | c)): what is told without a label, by Bayes' rule over all labels."""
    noise = noise_for(y, 2)
    of_class = [elbo(model.given(torch.full((len(y),), c)), y, noise).value for c in range(CLASSES)]
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    together = torch.logsumexp(torch.stack(of_class, dim=1) + shares, dim=1)
    torch.testing.assert_close(elbo(model, y, noise).value, together, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_labels_follow_bayes_rule_over_the_bounds(model: ClassPrior, y: Tensor) -> None:
    noise = noise_for(y, 1)
    of_class = [elbo(model.given(torch.full((len(y),), c)), y, noise).value for c in range(CLASSES)]
    joint = torch.stack(of_class, dim=1) + torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    torch.testing.assert_close(
        model.log_label(model.posterior(y)), torch.log_softmax(joint, dim=1), rtol=1e-4, atol=1e-4
    )
    model.temperature.fill_(1e6)
    torch.testing.assert_close(model.log_label(model.posterior(y)).exp(), torch.full((5, 4), 0.25), rtol=0, atol=1e-3)


@torch.no_grad()
def test_many_samples_never_loosen_the_bound(model: ClassPrior, y: Tensor) -> None:
    """The importance-weighted bound of the marginal is at least the plain one, which has the class's own KL in it."""
    noise = noise_for(y, 2000)
    assert (iwae(model, y, noise) >= elbo(model, y, noise).value - 1e-3).all()


@torch.no_grad()
def test_the_rate_is_spread_over_latents_and_never_negative(model: ClassPrior, y: Tensor) -> None:
    maps = bound_maps(model, y, noise_for(y, 1))
    posterior = maps.posterior
    joint = ClassMixture(model.log_share, model.of_class()).log_joint(posterior)
    torch.testing.assert_close(maps.total().rate, -torch.logsumexp(joint, dim=1), rtol=1e-5, atol=1e-4)
    assert (maps.total().rate >= 0).all()


def test_density_is_that_of_the_mixture() -> None:
    mean, scale = torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1.5])
    of_class = DiagonalGaussian(mean.reshape(2, 1, 1, 1), scale.log().reshape(2, 1, 1, 1))
    mixture = ClassMixture(torch.tensor([0.3, 0.7]).log(), of_class)
    z = torch.linspace(-8, 10, 20_001).reshape(1, -1, 1, 1, 1)
    density = mixture.log_density(z)[0].exp().numpy()
    assert np.trapezoid(density, dx=18 / 20_000) == pytest.approx(1, abs=1e-4)
    expected = 0.3 * torch.distributions.Normal(-1.0, 0.5).log_prob(torch.tensor(0.5)).exp()
    expected += 0.7 * torch.distributions.Normal(2.0, 1.5).log_prob(torch.tensor(0.5)).exp()
    assert float(mixture.log_density(torch.full((1, 1, 1, 1, 1), 0.5)).exp()) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_samples_of_a_class_have_its_mean_and_scale(model: ClassPrior) -> None:
    drawn = model.sample_class(torch.full((20_000,), 2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), model.of_class().mean[2], rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(0), model.of_class().log_scale[2].exp(), rtol=0.03, atol=0)
    everything = model.sample_prior(20_000, torch.Generator().manual_seed(0))
    expected = (model.log_share.exp()[:, None, None, None] * model.of_class().mean).sum(0)
    torch.testing.assert_close(everything.mean(0), expected, rtol=0, atol=0.06)


def test_training_by_labels_tells_classes_apart() -> None:
    """Of two kinds of image, from priors that are alike."""
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1,
        size=(8, 8),
        likelihood=GaussianLikelihood(),
        latent_channels=2,
        latent_grid=False,
        width=4,
        stages=1,
    )
    model = ClassPrior(network, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    label = torch.arange(32) % 2
    y = 0.5 + 0.1 * torch.randn(32, 1, 8, 8)
    y[label == 1, :, :2] += 0.3
    before = float(label_loss(model, model.posterior(y), label).detach())
    assert before == pytest.approx(math.log(2), abs=1e-3)  # priors are alike when training begins
    for _ in range(60):
        optimiser.zero_grad()
        label_loss(model, model.posterior(y), label).backward()
        optimiser.step()
    told = model.log_label(model.posterior(y)).argmax(dim=1)
    assert (told == label).float().mean() > 0.95
