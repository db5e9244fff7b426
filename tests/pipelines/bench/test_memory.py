"""Nearest neighbours against scikit-learn, PatchCore against its formula, PaDiM against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.neighbors import NearestNeighbors

from pipelines.bench import memory
from pipelines.bench.memory import (
    Bank,
    NearestNeighbour,
    Padim,
    PatchCore,
    coreset,
    embedding,
    fit_gaussians,
    rows_of,
)
from vaecore.representations.backbones import Backbone


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


def test_patchcore_weighs_as_the_paper_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "coreset_share", lambda _: 0.5)
    places, test = draw(60, 6), draw(2, 6, 16, 16, seed=2)
    method = PatchCore(lambda image: image, places, seed=0)
    bank = places[coreset(places, 30, 0)].numpy()
    scored = method(test)
    for image, score in zip(test.numpy(), scored.scores, strict=True):
        distance = cdist(image.reshape(6, -1).T, bank)
        worst = distance.min(axis=1).argmax()
        member = distance[worst].argmin()
        around = np.argsort(cdist(bank[member : member + 1], bank)[0])[:9]
        weight = 1 - np.exp(distance[worst, member]) / np.exp(distance[worst, around]).sum()
        assert float(score) == pytest.approx(weight * distance[worst, member], rel=1e-4)


def test_a_coreset_leaves_nothing_far_away() -> None:
    clusters = draw(20, 5, seed=3) * 50
    places = (clusters[:, None] + draw(20, 30, 5)).flatten(0, 1)[torch.randperm(600)]
    chosen = coreset(places, 20, seed=1)
    assert len(set(chosen.tolist())) == 20
    assert Bank(places[chosen]).nearest(places).distance.max() < 15  # one of each cluster
    assert not torch.equal(chosen, coreset(places, 20, seed=2))
    assert torch.equal(chosen, coreset(places, 20, seed=1))


def test_padim_equals_scipys_mahalanobis() -> None:
    train, test = draw(40, 5, 2, 3) * 3 + 1, draw(4, 5, 2, 3, seed=1)
    gaussians = fit_gaussians(train.split(7))
    maps = gaussians.distance(test)
    for row in range(2):
        for column in range(3):
            there = train[:, :, row, column].numpy().astype(np.float64)
            precision = np.linalg.inv(np.cov(there.T) + 0.01 * np.eye(5))
            for image in range(4):
                wanted = mahalanobis(test[image, :, row, column].numpy(), there.mean(axis=0), precision)
                assert float(maps[image, row, column]) == pytest.approx(wanted, rel=1e-4)


def test_padim_draws_channels_by_its_seed() -> None:
    train, test = draw(30, 150, 16, 16), draw(1, 150, 16, 16, seed=1)
    first, again, other = (
        Padim(lambda image: image, [train], 150, seed=seed)(test).scores.item() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_embeddings_lie_on_the_finest_grid() -> None:
    backbone = Backbone(strides=(8, 16))
    image = torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    fine, coarse = backbone(image.expand(-1, 3, -1, -1))
    plain = embedding(backbone, local=False)(image)
    assert plain.shape == (2, sum(backbone.channels), 8, 12)
    assert torch.equal(plain[:, : backbone.channels[0]], fine)
    assert torch.equal(plain[:, backbone.channels[0] :, ::2, ::2], coarse)
    assert embedding(backbone, local=True)(image)[0, 0, 3, 3] == pytest.approx(float(fine[0, 0, 2:5, 2:5].mean()))
