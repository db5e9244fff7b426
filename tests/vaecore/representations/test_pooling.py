"""From places to one score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from vaecore.representations.pooling import POOLINGS, PlaceStatistics, Pooling, Typicality


def test_poolings_are_what_they_say() -> None:
    places = torch.arange(100.0).view(1, 10, 10)
    assert Pooling()(places).item() == 49.5
    assert Pooling("top", 0.1)(places).item() == 94.5
    assert Pooling("top", 1e-9)(places).item() == 99
    assert Pooling("soft", 1.0)(places).item() == pytest.approx(99 + math.log(1 / (1 - math.exp(-1)) / 100), abs=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_a_pooling_rises_with_every_place_and_knows_no_order(pooling: Pooling) -> None:
    torch.manual_seed(0)
    places = torch.randn(4, 8, 8)
    assert (pooling(places + 1) - pooling(places) - 1).abs().max() < 1e-5
    shuffled = places.flatten(1)[:, torch.randperm(64)].view(4, 8, 8)
    torch.testing.assert_close(pooling(shuffled), pooling(places))
    apart = torch.cat([pooling(place[None]) for place in places])
    torch.testing.assert_close(apart, pooling(places))


def test_a_soft_maximum_lies_between_mean_and_maximum() -> None:
    torch.manual_seed(0)
    places = torch.randn(4, 8, 8)
    for sharpness in (0.5, 2.0, 50.0):
        soft = Pooling("soft", sharpness)(places)
        assert (places.mean(dim=(1, 2)) <= soft).all()
        assert (soft <= places.amax(dim=(1, 2))).all()
    torch.testing.assert_close(Pooling("soft", 1e-3)(places), places.mean(dim=(1, 2)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("kind", "value"), [("top", 0.0), ("top", 1.5), ("soft", -1.0)])
def test_what_is_no_pooling_is_refused(kind: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"a share is in \(0, 1\]|a share in \(0, 1\]"):
        Pooling(kind, value)


@pytest.mark.parametrize("odd", [0, 20])
def test_typicality_is_the_mahalanobis_distance_to_either_side_whatever_odd_images_there_are(odd: int) -> None:
    generator = np.random.default_rng(0)
    pairs = generator.multivariate_normal([3, 2], [[1, 0.8], [0.8, 1]], 500)
    inverse = np.linalg.inv(np.cov(pairs.T))
    outliers = generator.uniform(20, 60, (odd, 2))
    typicality = Typicality(torch.from_numpy(np.concatenate([pairs, outliers])).float())
    for point in ([5.0, 0.0], [1.0, 4.0], [90.0, 2.0]):
        expected = mahalanobis(point, pairs.mean(axis=0), inverse)
        assert float(typicality(torch.tensor([point]))) == pytest.approx(expected, rel=0.15)
    assert float(typicality(torch.tensor([[3.0, 2.0]]))) < 0.3


def test_a_few_pairs_are_all_taken() -> None:
    pairs = np.random.default_rng(0).normal(size=(12, 2))
    inverse = np.linalg.inv(np.cov(pairs.T))
    squares = [mahalanobis(pair, pairs.mean(axis=0), inverse) ** 2 for pair in pairs]
    found = Typicality(torch.from_numpy(pairs).float())(torch.tensor([[4.0, 1.0]]))
    expected = mahalanobis([4, 1], pairs.mean(axis=0), inverse) * (2 * math.log(2) / np.median(squares)) ** 0.5
    assert float(found) == pytest.approx(expected, rel=0.05)


def test_statistics_make_every_place_alike() -> None:
    torch.manual_seed(0)
    usual, spread = torch.randn(6, 6), 0.5 + torch.rand(6, 6)
    values = usual + spread * torch.randn(4000, 6, 6)
    found = PlaceStatistics(usual, spread)(values)
    assert found.mean(dim=0).abs().max() < 0.1
    assert (found.std(dim=0) - 1).abs().max() < 0.1
    assert torch.equal(PlaceStatistics()(values), values)
