"""The autoregressive prior: a density that integrates to one, samples that follow it, and a bound that gains by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vaecore.aggregate import aggregate_kl
from vaecore.bound import DiagonalGaussian, elbo, iwae
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE
from vaecore.priors.autoregressive import AutoregressivePrior


def model(latents: int = 2, *, size: int = 8, grid: bool = False, bent: float = 0.15) -> AutoregressivePrior:
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1, size=(size, size), likelihood=GaussianLikelihood(), latent_channels=latents, latent_grid=grid,
        width=4, stages=1,
    )  # fmt: skip
    made = AutoregressivePrior(network)
    if bent:
        for parameter in made.masked.head.parameters():
            torch.nn.init.normal_(parameter, std=bent)
    return made.eval()


@torch.no_grad()
def test_it_begins_near_the_standard_normal() -> None:
    """A quarter of a nat for each latent: training does not begin with a leap."""
    for made in (model(3, bent=0), model(3, grid=True, bent=0)):
        z = torch.randn(4, 50, *made.latent_shape)
        kl = torch.distributions.Normal(0.0, 1.0).log_prob(z) - made.prior(z).log_prob(z)
        assert -0.01 < float(kl.mean()) < 0.25


@torch.no_grad()
def test_its_density_integrates_to_one() -> None:
    """Over two latents of a vector, and over the second of two places given the first."""
    axis = torch.linspace(-9, 9, 601)
    z = torch.cartesian_prod(axis, axis)
    density = model().prior(z).log_density(z.reshape(1, -1, 2, 1, 1)).exp().reshape(601, 601).double().numpy()
    assert np.trapezoid(np.trapezoid(density, axis, axis=1), axis) == pytest.approx(1, abs=2e-3)
    assert abs(np.corrcoef(density)).min() < 0.999, "the second depends on the first"
    made, axis = model(1, size=4, grid=True), torch.linspace(-60, 60, 6001)
    z = torch.empty(1, 6001, 1, 2, 2)
    z[..., 0, 0], z[..., 0, 1], z[..., 1, 0], z[..., 1, 1] = 0.7, -0.4, 1.1, axis[:, None]
    last = made.prior(z).log_prob(z)[0, :, 0, 1, 1].exp().double().numpy()
    assert np.trapezoid(last, axis) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("grid", [False, True])
@torch.no_grad()
def test_samples_follow_the_density(grid: bool) -> None:
    """Each latent, told to the distribution function of its density, is uniform, and independent of those before it.

    Both functions are taken of the conditional mixtures that the log-density is made of, so that an error in the order
    of drawing, or a stale context, would show.
    """
    made = model(2, size=4 if grid else 8, grid=grid, bent=0.3)
    z = made.sample_prior(5_000, torch.Generator().manual_seed(1))
    logits, mean, log_scale = made.masked(z).unflatten(1, (3, 5, 2)).unbind(1)
    weight, scale = logits.softmax(1), log_scale.clamp(-5, 2).exp()
    told = (weight * torch.distributions.Normal(mean, scale).cdf(z[:, None])).sum(1)
    ordered = told.movedim(1, -1).flatten(1)  # the order of reading
    assert ordered.mean(0) == pytest.approx(np.full(ordered.shape[1], 0.5), abs=0.02)
    assert ordered.var(0) == pytest.approx(np.full(ordered.shape[1], 1 / 12), abs=0.005)
    assert float((ordered.T.corrcoef() - torch.eye(ordered.shape[1])).abs().max()) < 0.06
    raw = z.movedim(1, -1).flatten(1)
    assert float((raw.T.corrcoef() - torch.eye(raw.shape[1])).abs().max()) > 0.1, "latents depend on each other"
    found = made.prior(z).log_density(z[None])[0]
    other = made.sample_prior(5_000, torch.Generator().manual_seed(2))
    assert float(found.mean()) == pytest.approx(float(made.prior(z).log_density(other[None]).mean()), abs=0.15)


def test_no_latent_depends_on_a_later_one() -> None:
    made = model(3, grid=True)
    z = torch.randn(1, 1, *made.latent_shape, requires_grad=True)
    each = made.prior(z).log_prob(z)[0, 0].movedim(0, -1).flatten()
    for index in range(0, len(each), 7):
        (gradient,) = torch.autograd.grad(each[index], z, retain_graph=True)
        seen = gradient[0, 0].movedim(0, -1).flatten() != 0
        assert seen[index]
        assert not seen[index + 1 :].any()


@pytest.mark.parametrize("grid", [False, True])
@torch.no_grad()
def test_many_samples_never_loosen_the_bound(grid: bool) -> None:
    made, y = model(3, grid=grid), torch.rand(4, 1, 8, 8)
    noise = torch.randn(4, 500, *made.latent_shape)
    assert (iwae(made, y, noise) >= elbo(made, y, noise).value - 1e-3).all()


@torch.no_grad()
def test_it_can_be_compared_with_where_the_images_are() -> None:
    made = model(2, grid=True)
    found = aggregate_kl(made, made.posterior(torch.rand(12, 1, 8, 8)), torch.Generator().manual_seed(0), samples=200)
    assert all(math.isfinite(number) for estimate in found for number in estimate)


def test_it_learns_what_neighbours_have_in_common() -> None:
    """Latents of one image are alike all over the grid: a prior without neighbours pays for each of them."""
    made = model(1, size=8, grid=True, bent=0)
    torch.manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        return 2 * torch.randn(1, count, 1, 1, 1) + 0.2 * torch.randn(1, count, 1, 4, 4)

    optimiser = torch.optim.Adam(made.masked.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        z = draw(32)
        (-made.prior(z).log_density(z).mean()).backward()
        optimiser.step()
    z = draw(500)
    joint = torch.distributions.MultivariateNormal(torch.zeros(16), 4 * torch.ones(16, 16) + 0.04 * torch.eye(16))
    exact = float(joint.log_prob(z[0].flatten(1)).mean())
    single = float(torch.distributions.Normal(0.0, math.sqrt(4.04)).log_prob(z).sum() / 500)
    with torch.no_grad():
        learned = float(made.prior(z).log_density(z).mean())
    assert learned <= exact + 0.2
    assert learned > single + 0.7 * (exact - single)


@torch.no_grad()
def test_half_precision_around_it_does_not_change_it() -> None:
    made = model(3, grid=True)
    z = torch.randn(2, 3, *made.latent_shape)
    posterior = DiagonalGaussian(torch.zeros(2, 1, *made.latent_shape), torch.zeros(2, 1, *made.latent_shape))
    expected = made.prior(z).kl_from(posterior, z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(made.prior(z).kl_from(posterior, z), expected)
