"""The flow as a prior: a density that integrates to one, samples that follow it, and a bound that gains by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaecore.bound import elbo, iwae
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE
from vaecore.priors.flow import FlowPrior


def model(latents: int = 2, *, bent: bool = True) -> FlowPrior:
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1, size=(8, 8), likelihood=GaussianLikelihood(), latent_channels=latents, latent_grid=False, width=4,
        stages=1,
    )  # fmt: skip
    made = FlowPrior(network)
    if bent:
        for layer in made.layers:
            torch.nn.init.normal_(layer.net[-1].weight, std=0.15)
            torch.nn.init.normal_(layer.net[-1].bias, std=0.3)
    return made.eval()


@torch.no_grad()
def test_it_begins_as_the_standard_normal() -> None:
    made, z = model(3, bent=False), torch.randn(4, 5, 3, 1, 1)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=(2, 3, 4))
    torch.testing.assert_close(made.prior(z).log_density(z), expected)


@torch.no_grad()
def test_its_density_integrates_to_one() -> None:
    axis = torch.linspace(-9, 9, 601)
    z = torch.cartesian_prod(axis, axis).reshape(1, -1, 2, 1, 1)
    density = model().prior(z).log_density(z).exp().reshape(601, 601).double().numpy()
    assert np.trapezoid(np.trapezoid(density, axis, axis=1), axis) == pytest.approx(1, abs=2e-3)


@torch.no_grad()
def test_samples_follow_the_density() -> None:
    """Their mean is that of the density, by quadrature; and drawing and judging are inverse to each other."""
    made = model()
    drawn = made.sample_prior(40_000, torch.Generator().manual_seed(1))
    axis = torch.linspace(-9, 9, 601)
    z = torch.cartesian_prod(axis, axis)
    weight = made.prior(z).log_density(z.reshape(1, -1, 2, 1, 1))[0].exp()
    mean = (z * weight[:, None]).sum(0) / weight.sum()
    torch.testing.assert_close(drawn.mean(0).flatten(), mean, rtol=0, atol=0.03)
    assert (mean.abs() > 0.2).any(), "the flow is bent"
    there = drawn[:100].movedim(1, -1)
    for layer in made.layers:
        there, _ = layer(there)
    noise = torch.randn((40_000, 2, 1, 1), generator=torch.Generator().manual_seed(1))[:100].movedim(1, -1)
    torch.testing.assert_close(there, noise, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_many_samples_never_loosen_the_bound() -> None:
    made, y = model(3), torch.rand(4, 1, 8, 8)
    noise = torch.randn(4, 2000, 3, 1, 1)
    assert (iwae(made, y, noise) >= elbo(made, y, noise).value - 1e-3).all()


def test_it_learns_two_heaps() -> None:
    """Latents that lie in two heaps cost half a nat less than under any single normal distribution."""
    made = model(2, bent=False)
    z = 0.3 * torch.randn(1, 512, 2, 1, 1) + 2 * (torch.arange(512) % 2 * 2 - 1)[None, :, None, None, None]
    normal = torch.distributions.MultivariateNormal(z[0, :, :, 0, 0].mean(0), z[0, :, :, 0, 0].T.cov())
    optimiser = torch.optim.Adam(made.layers.parameters(), lr=3e-3)
    for _ in range(250):
        optimiser.zero_grad()
        (-made.prior(z).log_density(z).mean()).backward()
        optimiser.step()
    gained = made.prior(z).log_density(z).mean() - normal.log_prob(z[0, :, :, 0, 0]).mean()
    assert float(gained.detach()) > 0.3
