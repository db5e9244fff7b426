"""The linear VAE in closed form: its ELBO is the log-density of a dense Gaussian, and its fit is the best there is."""

import pytest
import torch
from torch import Tensor, distributions

from vaecore.bound import elbo
from vaecore.experts.linear_vae import ClosedFormLinearVAE, latents_for

SHAPE, LATENTS, IMAGES = (3, 4, 2), 5, 300


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dims = 24
    basis = torch.randn(LATENTS, dims, generator=generator)
    codes = torch.randn(IMAGES, LATENTS, generator=generator)
    scale = 0.1 + torch.rand(dims, generator=generator)
    return (codes @ basis + scale * torch.randn(IMAGES, dims, generator=generator) + 0.7).view(IMAGES, *SHAPE)


@pytest.fixture(scope="module")
def fitted(images: Tensor) -> ClosedFormLinearVAE:
    model = ClosedFormLinearVAE(channels=3, size=(4, 2), latents=LATENTS)
    model.fit(lambda: images.split(64))
    return model


def dense_log_density(model: ClosedFormLinearVAE, images: Tensor) -> Tensor:
    """log N(y; mu, W W' + diag(noise)) by the dense covariance, in double precision: no code of the bound's."""
    noise = (2 * model.likelihood.log_scale.double()).exp().flatten()
    weight = noise.sqrt()[:, None] * (model.basis.double().T * model.gain.double())
    covariance = weight @ weight.T + noise.diag()
    return distributions.MultivariateNormal(model.offset.double().flatten(), covariance).log_prob(images.flatten(1))


def test_the_bound_is_the_log_density_whatever_the_noise(images: Tensor, fitted: ClosedFormLinearVAE) -> None:
    exact = dense_log_density(fitted, images.double())
    for seed in (1, 2):
        noise = torch.randn(IMAGES, 1, LATENTS, 1, 1, generator=torch.Generator().manual_seed(seed))
        # The basis is rounded to half precision, so that its columns are orthonormal to three digits.
        torch.testing.assert_close(elbo(fitted, images, noise).value.double(), exact, rtol=1e-3, atol=5e-3)


def test_no_other_low_rank_gaussian_with_these_scales_does_better(images: Tensor, fitted: ClosedFormLinearVAE) -> None:
    """By gradient, from the solution: the mean log-density of the training images does not rise."""
    noise_scale = fitted.likelihood.log_scale.double()
    relative = (noise_scale - noise_scale.mean()).exp().flatten()
    start = relative[:, None] * noise_scale.mean().exp() * (fitted.basis.double().T * fitted.gain.double())
    weight, offset = start.contiguous().requires_grad_(), fitted.offset.double().flatten().clone().requires_grad_()
    log_scale = noise_scale.mean().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight, offset, log_scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        noise = (relative * log_scale.exp()).square().diag()
        value = -distributions.MultivariateNormal(offset, weight @ weight.T + noise).log_prob(
            images.double().flatten(1)
        )
        mean = value.mean()
        mean.backward()
        return mean

    before = loss().item()
    optimiser.step(loss)
    assert before - loss().item() < 1e-3  # nats an image, of 24 dimensions


def test_an_image_with_a_foreign_place_has_its_highest_distortion_there(
    images: Tensor, fitted: ClosedFormLinearVAE
) -> None:
    odd = images[:20].clone()
    odd[:, :, 2, 1] += 5.0
    posterior = fitted.posterior(odd)
    places = fitted.expected_distortion(odd, posterior).sum(dim=1).flatten(1)
    assert (places.argmax(dim=1) == 2 * 2 + 1).all()


def test_a_constant_dimension_divides_by_nothing() -> None:
    images = torch.randn(20, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 0.5
    model = ClosedFormLinearVAE(channels=2, size=(2, 2), latents=3)
    model.fit(lambda: [images])
    noise = torch.zeros(20, 1, 3, 1, 1)
    assert elbo(model, images, noise).value.isfinite().all()


def test_latents_follow_images_and_the_size_of_the_file() -> None:
    assert latents_for(10, 1000) == 7
    assert latents_for(2000, 87_040) == 128
    assert latents_for(2000, 1_000_000) == 14
    assert latents_for(1, 10**9) == 1
