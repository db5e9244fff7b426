"""Mixtures as priors: the rate is the log-ratio, one component is a Gaussian, and they can be exported and trained."""

from __future__ import annotations

import torch
from torch import distributions

from vaecore.bound import DiagonalGaussian, bound_maps, elbo, iwae, training_loss
from vaecore.likelihoods import BernoulliLikelihood
from vaecore.networks import ConvVAE, TwoLevelVAE
from vaecore.priors import GaussianMixture, MixturePrior, VampPrior


def mixture(components: int = 5, latents: int = 3) -> GaussianMixture:
    generator = torch.Generator().manual_seed(1)
    logits, mean, log_scale = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((components,), (components, latents), (components, latents))
    )
    return GaussianMixture(torch.log_softmax(logits, 0), 2 * mean, 0.5 * log_scale)


def posterior(batch: int = 2, latents: int = 3, grid: tuple[int, int] = (2, 1)) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(2)
    shape = (batch, latents, *grid)
    return DiagonalGaussian(
        torch.randn(shape, generator=generator, dtype=torch.float64),
        0.3 * torch.randn(shape, generator=generator, dtype=torch.float64) - 1,
    )


def test_the_density_is_torch_s_in_every_cell() -> None:
    p, z = mixture(), torch.randn(2, 4, 3, 2, 1, dtype=torch.float64)
    reference = distributions.MixtureSameFamily(
        distributions.Categorical(logits=p.log_weight),
        distributions.Independent(distributions.Normal(p.mean, p.log_scale.exp()), 1),
    )
    torch.testing.assert_close(p.log_density(z), reference.log_prob(z.movedim(2, -1)).sum(dim=(2, 3)))


def test_the_rate_of_all_latents_is_the_log_ratio_of_each_sample() -> None:
    p, q = mixture(), posterior()
    z = q.sample(torch.randn(2, 7, 3, 2, 1, dtype=torch.float64))
    rate = p.kl_from(q.for_samples(), z).sum(dim=(2, 3, 4))
    torch.testing.assert_close(rate, q.for_samples().log_density(z) - p.log_density(z))


def test_one_component_has_the_closed_form_on_average() -> None:
    p, q = mixture(components=1), posterior()
    z = q.sample(torch.randn(2, 200_000, 3, 2, 1, dtype=torch.float64))
    one = DiagonalGaussian(p.mean[0][None, :, None, None], p.log_scale[0][None, :, None, None])
    torch.testing.assert_close(p.kl_from(q.for_samples(), z).mean(dim=1), q.kl(one), rtol=0.02, atol=0.02)


def test_half_precision_in_training_leaves_narrow_components_as_they_are() -> None:
    torch.manual_seed(0)
    p = GaussianMixture(torch.full((20,), 1 / 20).log(), torch.randn(20, 16), torch.full((20, 16), -3.0))
    which = torch.randint(20, (64,))
    q = DiagonalGaussian(p.mean[which][:, :, None, None], p.log_scale[which][:, :, None, None] - 1)
    z = q.sample(torch.randn(64, 1, 16, 1, 1))
    rate, density = p.kl_from(q.for_samples(), z), p.log_density(z)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(p.kl_from(q.for_samples(), z), rate)
        torch.testing.assert_close(p.log_density(z), density)


def network() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(
        channels=1,
        size=(8, 8),
        likelihood=BernoulliLikelihood(),
        latent_channels=2,
        latent_grid=False,
        width=8,
        stages=2,
    )


def test_a_mixture_of_standard_normals_is_the_plain_model() -> None:
    plain, y = network(), (torch.rand(3, 1, 8, 8) > 0.5).float()
    same = MixturePrior(plain, components=4)
    with torch.no_grad():
        same.mean.zero_()
    noise = torch.randn(3, 20_000, 2, 1, 1)
    torch.testing.assert_close(elbo(same, y, noise).rate, elbo(plain, y, noise).rate, rtol=0.02, atol=0.02)
    few = noise[:, :16]
    torch.testing.assert_close(iwae(same, y, few), iwae(plain, y, few))


def test_the_importance_weighted_bound_is_no_looser() -> None:
    y, noise = (torch.rand(3, 1, 8, 8) > 0.5).float(), torch.randn(3, 400, 2, 1, 1)
    model = MixturePrior(network())
    assert (iwae(model, y, noise) >= elbo(model, y, noise).value - 1e-4).all()


def test_learned_images_become_components_and_stay_what_they_are_when_settle() -> None:
    images = torch.rand(6, 1, 8, 8)
    model = VampPrior(network(), images)
    q = model.posterior(images)
    torch.testing.assert_close(model.mixture().mean, q.mean[:, :, 0, 0])
    y, noise = (torch.rand(3, 1, 8, 8) > 0.5).float(), torch.randn(3, 4, 2, 1, 1)
    settled = model.settle()
    torch.testing.assert_close(elbo(settled, y, noise).value, elbo(model, y, noise).value)
    assert "pseudo_inputs" not in dict(settled.named_parameters())


def test_both_are_trained_to_a_rate_near_the_least_that_tells_two_kinds_of_images_apart() -> None:
    """A standard normal prior needs more than log 2 = 0.69 nats, since there is no gap in it (2.6 after as many)."""
    y = torch.cat([torch.zeros(8, 1, 8, 8), torch.ones(8, 1, 8, 8)])
    for model in (MixturePrior(network(), components=4), VampPrior(network(), torch.rand(4, 1, 8, 8))):
        optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
        losses = []
        for step in range(300):
            noise = torch.randn(16, 1, 2, 1, 1, generator=torch.Generator().manual_seed(step))
            loss = training_loss(bound_maps(model, y, noise))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(64 * loss.item())
        assert 0.3 < sorted(losses[-50:])[25] < 2


def test_latents_are_drawn_as_the_density_says() -> None:
    p = mixture()
    z = p.sample(4000, (2, 3), torch.Generator().manual_seed(0))
    assert z.shape == (4000, 3, 2, 3)
    weight = p.log_weight.exp()[:, None]
    mean = (weight * p.mean).sum(dim=0)
    spread = (weight * (p.log_scale.exp().square() + p.mean.square())).sum(dim=0) - mean.square()
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), mean, rtol=0.05, atol=0.05)
    torch.testing.assert_close(z.double().var(dim=(0, 2, 3)), spread, rtol=0.05, atol=0.05)


def test_two_levels_are_drawn_from_above() -> None:
    torch.manual_seed(0)
    lower = ConvVAE(channels=1, size=(8, 8), likelihood=BernoulliLikelihood(), latent_channels=2, width=8, stages=2)
    model = TwoLevelVAE(lower)
    z = model.sample_prior(500, torch.Generator().manual_seed(0))
    assert z.shape == (500, *model.latent_shape)
    noise = torch.randn((500, 1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z[:, 2:], noise[:, 0, 2:])
    torch.testing.assert_close(z[:, :2], model.prior(noise).mean[:, 0, :2] + noise[:, 0, :2], rtol=0.1, atol=0.1)
