"""The anomaly map's own distortion, against torch's normal distribution; the score does not know of it."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from vaecore.bound import DiagonalGaussian, bound_maps
from vaecore.graphs.scoring import ScoringGraph, squared_error
from vaecore.likelihoods import Gaussian, GaussianLikelihood, LaplaceLikelihood
from vaecore.networks import BottleneckVAE
from vaecore.representations import Features
from vaecore.representations.backbones import Backbone
from vaecore.representations.image_format import ImageFormat
from vaecore.representations.localisation import Localisation

CHANNELS, SIZE = 6, (8, 12)


def network(kind: type) -> BottleneckVAE:
    torch.manual_seed(0)
    return BottleneckVAE(channels=CHANNELS, size=SIZE, likelihood=kind(), latent_channels=3, width=8)


def test_the_scale_is_halfway_between_the_place_s_and_the_channel_s() -> None:
    model, y = network(GaussianLikelihood), torch.randn(2, CHANNELS, *SIZE)
    noise, usual, weight = (
        torch.randn(2, 5, *model.latent_shape),
        torch.rand(CHANNELS) + 0.1,
        torch.rand(CHANNELS, 1, 1),
    )
    with torch.no_grad():
        maps = bound_maps(model, y, noise)
        found = Localisation(usual)(y, maps, 5, weight)
    mean, scale = (part.view(2, 5, CHANNELS, *SIZE) for part in (maps.likelihood.mean, maps.likelihood.stddev))
    between = (scale * usual.sqrt()[:, None, None]).sqrt()
    expected = -(weight * Normal(mean, between).log_prob(y[:, None])).mean(dim=1)
    torch.testing.assert_close(found, expected)


def test_a_likelihood_without_such_a_scale_is_refused() -> None:
    model, y = network(LaplaceLikelihood), torch.randn(2, CHANNELS, *SIZE)
    maps = bound_maps(model, y, torch.randn(2, 1, *model.latent_shape))
    with pytest.raises(TypeError, match="only a Gaussian's scale can be tempered, not that of Laplace"):
        Localisation(torch.ones(CHANNELS))(y, maps, 1, None)


def test_it_changes_the_map_and_not_the_score() -> None:
    torch.manual_seed(0)
    features = Features(Backbone(), input_size=(64, 96), smooth="both")
    model = BottleneckVAE(
        channels=features.channels, size=features.size, likelihood=GaussianLikelihood(), width=8, stages=1
    )
    image = torch.randint(0, 256, (2, 64, 96, 1), dtype=torch.uint8)
    noise, form = torch.randn(2, 2, *model.latent_shape), ImageFormat(channels=1, bit_depth=8)
    plain = ScoringGraph(model, form, features).eval()
    located = ScoringGraph(model, form, features, localisation=Localisation(torch.rand(features.channels))).eval()
    with torch.no_grad():
        one, other = plain(image, noise), located(image, noise)
    torch.testing.assert_close(one["score"], other["score"])
    assert (one["anomaly_map"] - other["anomaly_map"]).abs().max() > 1
    with torch.no_grad():
        y = located.to_y(image)
        maps = bound_maps(model, y, noise)
        weighted = located.localisation(y, maps, 2, None) * features.local_weight
    at_places = weighted[:, :112].sum(dim=1) + weighted[:, 112:].sum(dim=1)
    torch.testing.assert_close(located.localise(y, maps, 2, torch.zeros(())), at_places, rtol=1e-4, atol=1e-2)
    assert "at a scale between" in located.outputs["anomaly_map"]


def test_squared_error_is_of_each_channel() -> None:
    class Nought(torch.nn.Module):
        latent_shape = (1, 1, 1)

        def posterior(self, y: torch.Tensor) -> DiagonalGaussian:
            return DiagonalGaussian(torch.zeros(len(y), 1, 1, 1), torch.zeros(len(y), 1, 1, 1))

        def prior(self, _: torch.Tensor) -> DiagonalGaussian:
            return DiagonalGaussian(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))

        def decode(self, z: torch.Tensor) -> Gaussian:
            return Gaussian(torch.zeros(len(z), 3, 4, 5), torch.zeros(()))

    spread = torch.tensor([0.5, 1.0, 3.0])[:, None, None]
    batches = [spread * torch.ones(2, 3, 4, 5), -spread * torch.ones(7, 3, 4, 5)]
    found = squared_error(Nought(), batches, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.tensor([0.25, 1.0, 9.0]))
