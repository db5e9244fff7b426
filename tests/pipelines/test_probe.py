"""Whether features are averaged is tried on the images: small marks on a fine pattern need them as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import mahalanobis

from pipelines.job import Job, job_from_document
from pipelines.probe import _distances, smoothing_helps
from pipelines.train import prepare
from vaecore.backbones import Backbone


def test_distances_are_those_of_mahalanobis() -> None:
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((40, 3, 4, 5))
    places = maps[:30].transpose(0, 2, 3, 1).reshape(-1, 3)
    inverse = np.linalg.inv(np.cov(places.T))
    found = _distances(torch.from_numpy(maps), 30)
    assert found.shape == (10, 4, 5)
    expected = mahalanobis(maps[33, :, 2, 4], places.mean(axis=0), inverse) ** 2 / 3
    assert float(found[3, 2, 4]) == pytest.approx(expected, rel=1e-2)  # the ridge is a thousandth


@pytest.fixture
def job(tmp_path: Path) -> Job:
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for number in range(40):
        pattern = (np.indices((128, 128)).sum(axis=0) // 4 % 2 * 200).astype(np.uint8)
        noisy = np.clip(pattern + generator.normal(20, 6, pattern.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / "good" / f"{number}.png")
    document = {"name": "x", "task": "reconstruct", "data": {"train": str(tmp_path / "good")}}
    return job_from_document({**document, "model": {"size": 128, "smooth": True}}, tmp_path / "job.toml")


def test_the_answer_repeats_and_the_job_has_the_last_word(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(job)
    assert prepared.representation.smooth is True
    one, two = (smoothing_helps(Backbone(), prepared.plan, prepared.data) for _ in range(2))
    assert one is two
    asked = prepare(job.model_copy(update={"model": job.model.model_copy(update={"smooth": None})}))
    assert asked.representation.smooth is one
