"""Likelihood and complexity together: the distance from good images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from vaecore.representations.complexity import Typicality


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
