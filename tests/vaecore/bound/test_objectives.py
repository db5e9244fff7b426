"""What training may minimise: the importance-weighted bound, and the dependence of latents, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from vaecore.bound import DiagonalGaussian, bound_maps, iwae, training_loss
from vaecore.bound.objectives import iwae_loss, total_correlation
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE


@pytest.fixture
def network() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(channels=1, size=(8, 8), likelihood=GaussianLikelihood(), latent_channels=2, width=4, stages=2)


def test_one_sample_of_the_importance_weighted_bound_is_the_sampled_elbo(network: ConvVAE) -> None:
    y, noise = torch.rand(3, 1, 8, 8), torch.randn(3, 1, 2, 2, 2)
    posterior = network.posterior(y)
    z = posterior.sample(noise)
    log_p = network.decode(z[:, 0]).log_prob(y).sum(dim=(1, 2, 3))
    sampled = log_p + network.prior(z).log_density(z)[:, 0] - posterior.for_samples().log_density(z)[:, 0]
    torch.testing.assert_close(iwae_loss(network, y, noise), -sampled.mean() / 64)


def test_training_with_it_makes_it_tighter_than_training_with_the_bound(network: ConvVAE) -> None:
    """Of the same network, under the same noise."""
    y = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    reached = {}
    for objective in ("elbo", "iwae"):
        network.load_state_dict(start)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.005)
        for step in range(250):
            noise = torch.randn(16, 8, 2, 2, 2, generator=torch.Generator().manual_seed(step))
            plain = objective == "elbo"
            loss = training_loss(bound_maps(network, y, noise)) if plain else iwae_loss(network, y, noise)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            noise = torch.randn(16, 200, 2, 2, 2, generator=torch.Generator().manual_seed(10**6))
            reached[objective] = iwae(network, y, noise).mean().item()
    assert reached["iwae"] > reached["elbo"]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_dependence_of_two_latents_is_that_of_their_correlation(correlation: float) -> None:
    """Total correlation of a Gaussian in closed form: -log(1 - rho^2) / 2; without any, it is the constant alone."""
    count, scale = 2000, 0.4  # of each image's posterior: the aggregate of all is Gaussian, too
    generator = torch.Generator().manual_seed(0)
    rho = correlation / (1 - scale**2)  # of the means, so that it is `correlation` with the posteriors' own width
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64) * math.sqrt(1 - scale**2)
    first, other = noise.unbind(1)
    means = torch.stack([first, rho * first + math.sqrt(1 - rho**2) * other], dim=1)
    posterior = DiagonalGaussian(means[:, :, None, None], torch.full((count, 2, 1, 1), math.log(scale)).double())
    z = posterior.sample(torch.randn(count, 1, 2, 1, 1, generator=generator, dtype=torch.float64))[:, 0]
    expected = -0.5 * math.log(1 - correlation**2)
    assert float(total_correlation(posterior, z)) == pytest.approx(expected, abs=0.06)
