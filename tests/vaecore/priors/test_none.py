"""The deterministic autoencoder: what is left of the bound, and principal components where everything is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from vaecore.bound import bound_maps, elbo, iwae, training_loss
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE, LinearVAE
from vaecore.priors import Autoencoder


def test_chance_and_latents_cost_nothing() -> None:
    torch.manual_seed(0)
    inner = ConvVAE(channels=1, size=(8, 8), likelihood=GaussianLikelihood(), latent_channels=2, width=4, stages=2)
    model, y = Autoencoder(inner), torch.rand(3, 1, 8, 8)
    first, other = (elbo(model, y, torch.randn(3, 4, 2, 2, 2)) for _ in range(2))
    assert torch.equal(first.value, other.value)
    assert not first.rate.any()
    expected = -inner.decode(inner.posterior(y).mean).log_prob(y).sum(dim=(1, 2, 3))
    torch.testing.assert_close(first.distortion, expected)
    with pytest.raises(TypeError, match="has no density of latents"):
        iwae(model, y, torch.randn(3, 4, 2, 2, 2))


def test_a_linear_one_spans_the_principal_components_and_errs_as_they_do() -> None:
    """Trained by gradients from a random start, on images whose variances fall off."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(36, 36, generator=generator, dtype=torch.float64)).Q
    scales = torch.cat([torch.tensor([3.0, 2.0, 1.5, 1.0]), 0.3 * torch.ones(32)]).double()
    data = 0.5 + torch.randn(400, 36, generator=generator, dtype=torch.float64) * scales @ axes.T
    y = data.view(400, 1, 6, 6)
    torch.manual_seed(0)
    linear = LinearVAE(channels=1, size=(6, 6), latents=4).double()
    model = Autoencoder(linear)
    optimiser = torch.optim.LBFGS(
        [linear.encoder.weight, linear.decoder.weight, linear.offset], max_iter=500, line_search_fn="strong_wolfe"
    )
    noise = torch.zeros(400, 1, 4, 1, 1, dtype=torch.float64)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = training_loss(bound_maps(model, y, noise))
        loss.backward()
        return loss

    optimiser.step(closure)
    centred = (data - data.mean(dim=0)).numpy()
    components = np.linalg.svd(centred, full_matrices=False)[2][:4]
    angles = subspace_angles(linear.decoder.weight.detach().numpy(), components.T)
    assert angles.max() < 1e-2
    of_components = np.square(centred - centred @ components.T @ components).mean()
    with torch.no_grad():
        error = (model.decode(model.posterior(y).mean).mean - y).square().mean().item()
    assert error == pytest.approx(of_components, rel=0.01)
