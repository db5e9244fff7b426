"""The scripts that compare models: what is written is read back, measured, and not trained twice."""

from __future__ import annotations

import csv
import importlib
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from lectures.shapes import FACTORS, all_factors, draw_sprite
from PIL import Image
from torch import nn


@pytest.fixture
def script(own_home: Path) -> ModuleType:
    return importlib.import_module("sprites")


def test_sprites_are_written_trained_on_and_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = all_factors()[::150]
    monkeypatch.setattr(script, "all_factors", lambda: some)
    script.write(tmp_path / "pictures")
    with (tmp_path / "pictures" / "factors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[int(row[factor]) for factor in FACTORS] for row in rows] == some.tolist()
    with Image.open(tmp_path / "pictures" / rows[7]["file"]) as image:
        np.testing.assert_array_equal(np.asarray(image), draw_sprite(some[7]))

    caplog.set_level(logging.INFO)
    found = script.compare(tmp_path / "pictures", tmp_path / "work", steps=2, beta=6.0, seeds=1)
    for name in ("elbo", "total_correlation"):
        (run,) = found["runs"][name]
        assert run["elbo"] == pytest.approx(-run["distortion"] - run["rate"], rel=1e-5)
        assert run["mig"] == pytest.approx(np.mean(list(run["gaps"].values())))
        assert np.shape(run["information"]) == (10, 5)
    assert found["runs"]["elbo"] != found["runs"]["total_correlation"]
    caplog.clear()
    again = script.compare(tmp_path / "pictures", tmp_path / "work", steps=2, beta=6.0, seeds=1)
    assert again == found
    assert caplog.text.count("had ended at step 2 of 2") == 2


def test_pairs_are_of_different_images_and_confidence_is_the_largest_probability(script: ModuleType) -> None:
    gaps = importlib.import_module("gaps")
    first, other = gaps.pairs_of(5, 1000, seed=0)
    assert (first != other).all()
    assert set(first.tolist()) == set(other.tolist()) == set(range(5))
    pictures = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (pictures.mean(dim=(1, 2, 3)) > 0.5).long()
    pictures[labels == 1] += 0.5
    classifier = gaps.classifier_of(pictures, labels, steps=60, seed=0)
    assert (classifier(pictures).argmax(dim=1) == labels).float().mean() > 0.95
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(fixed[1].weight)
    fixed[1].bias.data = torch.tensor([0.2, 0.7, 0.1]).log()
    confidence, energy = gaps.asked(fixed, pictures[:4])
    assert confidence.tolist() == pytest.approx([0.7] * 4)
    assert energy.tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert gaps.summary(torch.tensor([1.0, 3.0])) == pytest.approx((2.0, 1.0))
