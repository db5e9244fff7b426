"""Nearest neighbours against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from pipelines.bench import memory
from pipelines.bench.memory import Bank, NearestNeighbour, rows_of


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_neighbour_equals_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ENTRIES", 700)  # several parts
    train, test = draw(6, 10, 4, 5), draw(3, 10, 4, 5, seed=1)
    scored = NearestNeighbour(lambda image: image, rows_of(train))(test)
    reference = NearestNeighbors(n_neighbors=1).fit(train.movedim(1, -1).reshape(-1, 10).numpy())
    distance, _ = reference.kneighbors(test.movedim(1, -1).reshape(-1, 10).numpy())
    np.testing.assert_allclose(scored.maps.numpy(), distance.reshape(3, 4, 5), rtol=1e-5)
    np.testing.assert_allclose(scored.scores.numpy(), distance.reshape(3, -1).max(axis=1), rtol=1e-5)


def test_a_place_of_the_bank_is_at_distance_zero() -> None:
    bank = 1000 + draw(500, 8)
    found = Bank(bank).nearest(bank[100:150], 3)
    assert found.place[:, 0].tolist() == list(range(100, 150))
    assert (found.distance[:, 0] == 0).all()
    assert (found.distance.diff(dim=1) >= 0).all()
