"""Which features are used is tried on the images: small marks on a fine pattern need fine ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import mahalanobis

from pipelines.data.plan import make_plan, survey
from pipelines.data.training_images import load_training_data
from pipelines.jobfile.job import Job, job_from_document
from pipelines.train import prepare
from pipelines.training import feature_probe
from pipelines.training.feature_probe import Distances, details_help
from pipelines.training.options import find_task


def test_distances_are_those_of_mahalanobis() -> None:
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((40, 3, 4, 5))
    places = maps[:30].transpose(0, 2, 3, 1).reshape(-1, 3)
    inverse = np.linalg.inv(np.cov(places.T))
    distances = Distances(3)
    for part in (maps[:10], maps[10:30]):
        distances.learn(torch.from_numpy(part))
    found = distances(torch.from_numpy(maps[30:]))
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
    return job_from_document({**document, "model": {"size": 128}}, tmp_path / "job.toml")


def with_model(job: Job, **options: object) -> Job:
    return job.model_copy(update={"model": job.model.model_copy(update=options)})


def test_the_answer_repeats_and_decides(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    task, found = find_task(job), survey(job)
    wide, fine = make_plan(job, task, found), make_plan(job, task, found, "details")
    data = load_training_data(job, wide)
    figures = [details_help(job, wide, fine, data, standardise=False) for _ in range(2)]
    assert figures[0] is figures[1]
    for margin, chosen in ((-1.0, "details"), (1.0, "features")):
        monkeypatch.setattr(feature_probe, "CLEARLY_BETTER", margin)
        prepared = prepare(job)
        assert prepared.plan.target_name == chosen
        assert prepared.representation.whiten is (chosen == "details")
        assert prepared.data.pixels.shape[1:3] == prepared.plan.size


@pytest.mark.parametrize("asked", [{"target": "features"}, {"strides": (16,)}, {"smooth": False}])
def test_the_job_has_the_last_word(job: Job, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_probe, "CLEARLY_BETTER", -1.0)
    assert prepare(with_model(job, **asked)).plan.target_name == "features"


def test_a_backbone_without_fine_maps_keeps_the_wider_view(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_probe, "CLEARLY_BETTER", -1.0)
    task, found = find_task(job), survey(job)
    wide, fine = make_plan(job, task, found), make_plan(job, task, found, "details")
    coarse_only = make_plan(with_model(job, strides=(64,)), task, found, "details")
    assert coarse_only.strides == (64,)
    assert not details_help(job, wide, coarse_only, load_training_data(job, wide), standardise=False)
    assert details_help(job, wide, fine, load_training_data(job, wide), standardise=False)
