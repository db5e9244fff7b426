"""Several networks side by side: their bound is the mean of theirs, and one on the mixture's likelihood."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from vaecore.bound import bound_maps, elbo
from vaecore.likelihoods import Gaussian, GaussianLikelihood
from vaecore.likelihoods.pooled import Pooled
from vaecore.localisation import Localisation
from vaecore.networks import BottleneckVAE, MixtureVAE


def network(seed: int) -> BottleneckVAE:
    torch.manual_seed(seed)
    return BottleneckVAE(channels=5, size=(8, 12), likelihood=GaussianLikelihood(0.05), latent_channels=3, width=8)


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randn((2, 5, 8, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn((2, 4, 6, 2, 3), generator=torch.Generator().manual_seed(2))


def test_the_bound_is_the_mean_of_the_members_bounds(y: torch.Tensor, noise: torch.Tensor) -> None:
    members = [network(0), network(1)]
    model = MixtureVAE(members)
    assert model.latent_shape == (6, 2, 3)
    parts = [elbo(member, y, part) for member, part in zip(members, noise.chunk(2, dim=2), strict=True)]
    found = elbo(model, y, noise)
    torch.testing.assert_close(found.value, (parts[0].value + parts[1].value) / 2)
    torch.testing.assert_close(found.rate, (parts[0].rate + parts[1].rate) / 2)
    mixture = torch.logsumexp(torch.stack([part.value for part in parts]), dim=0) - math.log(2)
    assert (found.value <= mixture).all()


def test_equal_members_are_one(y: torch.Tensor, noise: torch.Tensor) -> None:
    member = network(0)
    model = MixtureVAE([member, copy.deepcopy(member), copy.deepcopy(member)])
    single = noise[:, :, :3]
    maps, alone = bound_maps(model, y, single.repeat(1, 1, 3, 1, 1)), bound_maps(member, y, single)
    torch.testing.assert_close(maps.distortion, alone.distortion)
    torch.testing.assert_close(maps.rate, alone.rate)
    torch.testing.assert_close(maps.likelihood.stddev, alone.likelihood.stddev)


def test_moments_are_those_of_the_mixture() -> None:
    parts = [Gaussian(torch.tensor([-1.0]), torch.zeros(1)), Gaussian(torch.tensor([3.0]), torch.tensor([2.0]).log())]
    pooled = Pooled(tuple(parts))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([part.mean + part.stddev * torch.randn(200_000, generator=generator) for part in parts])
    assert pooled.mean.item() == pytest.approx(drawn.mean().item(), abs=0.02)
    assert pooled.stddev.item() == pytest.approx(drawn.std().item(), abs=0.02)


def test_the_anomaly_map_tempers_the_scale_of_every_member(y: torch.Tensor, noise: torch.Tensor) -> None:
    members = [network(0), network(1)]
    localisation = Localisation(torch.full((5,), 0.3))
    whole = localisation(y, bound_maps(MixtureVAE(members), y, noise), 4, None)
    parts = [
        localisation(y, bound_maps(member, y, part), 4, None)
        for member, part in zip(members, noise.chunk(2, dim=2), strict=True)
    ]
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


def test_members_learn_apart(y: torch.Tensor, noise: torch.Tensor) -> None:
    model = MixtureVAE([network(0), network(1)])
    first, second = model.members
    bound_maps(model, y, noise).total().value.sum().backward()
    alone = network(0)
    elbo(alone, y, noise[:, :, :3]).value.sum().backward()
    for mine, its in zip(first.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad / 2)
    assert all(weights.grad is not None for weights in second.parameters())
