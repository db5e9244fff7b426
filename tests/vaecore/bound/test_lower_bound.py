"""The bound against closed forms: probabilistic PCA, torch's KL, the IWAE ladder, sums over places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, distributions

from vaecore.bound import (
    BoundMaps,
    DiagonalGaussian,
    attribution,
    bound_from_above,
    bound_maps,
    elbo,
    iwae,
    training_loss,
)
from vaecore.bound.regret import likelihood_regret
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE, LinearVAE, TwoLevelVAE

LATENTS, SIZE = 3, (4, 5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dims = 2 * SIZE[0] * SIZE[1]
    basis = torch.randn(LATENTS, dims, generator=generator, dtype=torch.float64)
    codes = torch.randn(400, LATENTS, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(400, dims, generator=generator, dtype=torch.float64)
    return (codes @ basis + noise + 0.7).view(400, 2, *SIZE)


@pytest.fixture(scope="module")
def optimum(images: Tensor) -> tuple[LinearVAE, float]:
    model = LinearVAE(channels=2, size=SIZE, latents=LATENTS).double()
    return model, model.set_to_optimum(images)


def ppca_log_likelihood(model: LinearVAE, images: Tensor) -> Tensor:
    """log N(y; mu, W W' + sigma^2 I) by the dense covariance: shares no code with the bound."""
    weight, variance = model.decoder.weight, (2 * model.likelihood.log_scale).exp()
    covariance = weight @ weight.T + variance * torch.eye(len(weight), dtype=weight.dtype)
    return distributions.MultivariateNormal(model.offset, covariance).log_prob(images.flatten(1))


def sigma_points(images: int) -> Tensor:
    """Noise whose mean is 0 and whose covariance is I exactly: a quadratic's expectation has no sampling error."""
    points = LATENTS**0.5 * torch.eye(LATENTS, dtype=torch.float64)
    return torch.cat([points, -points])[None, :, :, None, None].expand(images, -1, -1, -1, -1)


def test_linear_vae_at_its_optimum_is_probabilistic_pca(images: Tensor, optimum: tuple[LinearVAE, float]) -> None:
    model, closed_form = optimum
    with torch.no_grad():
        bound = elbo(model, images, sigma_points(len(images))).value
        exact = ppca_log_likelihood(model, images)
    assert exact.mean().item() == pytest.approx(closed_form, abs=1e-8)
    assert bound.mean().item() == pytest.approx(closed_form, abs=1e-8)
    torch.testing.assert_close(bound, exact)  # the posterior is exact, so the bound is tight for each image


def test_sampled_noise_gives_the_same_bound(images: Tensor, optimum: tuple[LinearVAE, float]) -> None:
    model, closed_form = optimum
    noise = torch.randn(400, 100, LATENTS, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        bound = elbo(model, images, noise).value.mean().item()
    assert abs(bound - closed_form) / images[0].numel() < 1e-3


def test_training_a_linear_vae_reaches_probabilistic_pca(images: Tensor, optimum: tuple[LinearVAE, float]) -> None:
    """By gradient from random weights, with the scale in closed form: nothing of the solution is put in."""
    torch.manual_seed(3)
    model = LinearVAE(channels=2, size=SIZE, latents=LATENTS).double()
    noise = sigma_points(len(images))
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        maps = bound_maps(model, images, noise)
        loss = training_loss(maps)
        loss.backward()
        return loss

    for _ in range(30):
        optimiser.step(closure)
        maps = bound_maps(model, images, noise)
        model.likelihood.observe(images.repeat_interleave(2 * LATENTS, dim=0), maps.likelihood)
    with torch.no_grad():
        reached = elbo(model, images, noise).value.mean().item()
    assert abs(reached - optimum[1]) / images[0].numel() < 1e-3


def test_kl_agrees_with_torch() -> None:
    torch.manual_seed(0)
    q, p = (DiagonalGaussian(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)) for _ in range(2))
    reference = distributions.kl_divergence(
        distributions.Normal(q.mean, q.log_scale.exp()), distributions.Normal(p.mean, p.log_scale.exp())
    )
    torch.testing.assert_close(q.kl(p), reference)
    assert q.kl(q).abs().max() == 0
    assert (q.kl(p) >= 0).all()


def by_place(maps: BoundMaps) -> Tensor:
    return attribution(maps.distortion.sum(dim=1), maps.rate)


@pytest.fixture(scope="module")
def conv() -> ConvVAE:
    torch.manual_seed(0)
    model = ConvVAE(channels=1, size=(32, 48), likelihood=GaussianLikelihood(), latent_channels=4, width=8, stages=3)
    for parameter in model.parameters():  # away from the zero start, so that nothing is trivially equal
        torch.nn.init.normal_(parameter, std=0.08)
    return model


def test_distortion_and_rate_summed_over_places_are_minus_the_elbo(conv: ConvVAE) -> None:
    y = torch.rand(3, 1, 32, 48)
    noise = torch.randn(3, 2, *conv.latent_shape)
    maps, bound = bound_maps(conv, y, noise), elbo(conv, y, noise)
    torch.testing.assert_close(by_place(maps).sum(dim=(1, 2)), -bound.value, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(bound.distortion + bound.rate, -bound.value)
    assert (bound.rate > 0).all()


def test_iwae_rises_with_samples_and_starts_at_the_elbo(images: Tensor) -> None:
    """E[IWAE_1] is the ELBO; IWAE_k climbs towards the exact log-likelihood and does not pass it."""
    model = LinearVAE(channels=2, size=SIZE, latents=LATENTS).double()
    model.set_to_optimum(images)
    with torch.no_grad():
        model.log_scale += 0.7  # a posterior that is too wide: the bound is loose, there is a ladder to climb
        noise = torch.randn(400, 1024, LATENTS, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        exact = ppca_log_likelihood(model, images).mean()
        ladder = torch.stack([iwae(model, images, noise[:, :k]).mean() for k in (1, 4, 16, 64, 256, 1024)])
        plain = elbo(model, images, noise).value.mean()
        single = torch.stack([iwae(model, images, noise[:, k : k + 1]).mean() for k in range(64)]).mean()
    assert (ladder.diff() > 0).all(), ladder
    assert single.item() == pytest.approx(plain.item(), abs=0.02)
    assert exact - 0.01 < ladder[-1] < exact + 0.01
    assert plain < exact - 0.3


def test_the_same_noise_gives_the_same_bound_to_the_bit(conv: ConvVAE) -> None:
    y, noise = torch.rand(2, 1, 32, 48), torch.randn(2, 3, *conv.latent_shape)
    assert torch.equal(elbo(conv, y, noise).value, elbo(conv, y, noise).value)


def test_beta_and_free_bits_change_training_only(conv: ConvVAE) -> None:
    y, noise = torch.rand(2, 1, 32, 48), torch.randn(2, 1, *conv.latent_shape)
    maps = bound_maps(conv, y, noise)
    bound, dims = maps.total(), y[0].numel()
    plain = training_loss(maps)
    torch.testing.assert_close(plain, -bound.value.mean() / dims)
    heavier = training_loss(maps, beta=3.0)
    torch.testing.assert_close(heavier, (bound.distortion + 3 * bound.rate).mean() / dims)
    floored = training_loss(maps, free_bits=1e6)
    torch.testing.assert_close(floored, (bound.distortion.mean() + 1e6 * conv.latent_shape[0]) / dims)


def test_size_must_fit_the_stride() -> None:
    with pytest.raises(ValueError, match=r"30 x 48 is not a multiple of the stride 8"):
        ConvVAE(channels=1, size=(30, 48), likelihood=GaussianLikelihood(), stages=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_vector_latents_for_the_lecture_case(channels: int) -> None:
    model = ConvVAE(
        channels=channels,
        size=(28, 28),
        likelihood=GaussianLikelihood(),
        latent_channels=2,
        latent_grid=False,
        stages=2,
    )
    assert model.latent_shape == (2, 1, 1)
    y = torch.rand(3, channels, 28, 28)
    maps = bound_maps(model, y, torch.randn(3, 1, 2, 1, 1))
    assert maps.posterior.mean.shape == (3, 2, 1, 1)
    torch.testing.assert_close(by_place(maps).sum(dim=(1, 2)), -maps.total().value, rtol=1e-5, atol=1e-3)


def test_an_upper_level_that_says_nothing_changes_nothing(conv: ConvVAE) -> None:
    """Its first weights make p(grid | upper) the standard normal and q(upper | y) its own prior."""
    model = TwoLevelVAE(conv, upper_channels=2, width=8)
    y = torch.rand(3, 1, 32, 48)
    noise = torch.randn(3, 5, *model.latent_shape)
    with torch.no_grad():
        maps, plain = bound_maps(model, y, noise), bound_maps(conv, y, noise[:, :, :4])
    torch.testing.assert_close(maps.total().value, plain.total().value)
    assert maps.kl[:, 4:].abs().max() < 1e-6
    torch.testing.assert_close(maps.kl[:, :4], plain.kl)


@pytest.fixture(scope="module")
def two_levels(conv: ConvVAE) -> TwoLevelVAE:
    torch.manual_seed(1)
    model = TwoLevelVAE(conv, upper_channels=1, width=8)
    for parameter in [*model.to_upper.parameters(), *model.to_prior.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    return model.double()


def test_the_rate_of_two_levels_is_the_expected_log_ratio(two_levels: TwoLevelVAE) -> None:
    y = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    noise = torch.randn(2, 4000, *two_levels.latent_shape, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        posterior = two_levels.posterior(y)
        z = posterior.sample(noise)
        kl = posterior.for_samples().kl(two_levels.prior(z)).mean(dim=1).sum(dim=(1, 2, 3))
        ratio = posterior.for_samples().log_prob(z) - two_levels.prior(z).log_prob(z)
    found = ratio.sum(dim=(2, 3, 4))
    error = float(found.std(dim=1).max()) / 4000**0.5
    torch.testing.assert_close(found.mean(dim=1), kl, rtol=0, atol=4 * error)
    assert (kl > 0).all()


def test_the_ratio_between_levels_is_nought_where_the_upper_one_knows_the_lower(
    two_levels: TwoLevelVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = torch.rand(3, 1, 32, 48, dtype=torch.float64)
    noise = torch.randn(3, 2, *two_levels.latent_shape, generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        full = bound_maps(two_levels, y, noise)
        above = bound_from_above(two_levels, full, y, noise)
        assert above.kl[:, :4].abs().max() == 0
        torch.testing.assert_close(above.kl[:, 4:], full.kl[:, 4:])
        lower = DiagonalGaussian(
            *(part[:, None, :4].expand(-1, 2, -1, -1, -1) for part in (full.posterior.mean, full.posterior.log_scale))
        )
        monkeypatch.setattr(two_levels, "_below", lambda _: lower)
        full = bound_maps(two_levels, y, noise)
        above = bound_from_above(two_levels, full, y, noise)
    torch.testing.assert_close(above.total().value, full.total().value)


def test_regret_is_what_a_wrong_posterior_loses(images: Tensor, optimum: tuple[LinearVAE, float]) -> None:
    """At the optimum nothing can be gained; a posterior that is off by known steps loses a known part of the bound."""
    model, some = optimum[0], images[:20]
    none = likelihood_regret(model, some, torch.Generator().manual_seed(0))

    class Off(torch.nn.Module):
        likelihood, latent_shape, decode, prior = model.likelihood, model.latent_shape, model.decode, model.prior

        def posterior(self, y: Tensor) -> DiagonalGaussian:
            right = model.posterior(y)
            return DiagonalGaussian(right.mean + 0.5, right.log_scale + 0.3)

    with torch.no_grad():
        lost = (elbo(model, some, sigma_points(20)).value - elbo(Off(), some, sigma_points(20)).value).mean()
    assert lost > 1
    assert abs(none.mean()) < 0.02 * lost
    found = likelihood_regret(Off(), some, torch.Generator().manual_seed(0), steps=300)
    assert found.mean().item() == pytest.approx(lost.item(), rel=0.1)
    again = likelihood_regret(Off(), some, torch.Generator().manual_seed(0), steps=300)
    assert torch.equal(found, again)
