"""Features are extracted once, standardised over the train split alone, and survive a killed extraction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.examples import make_examples
from pipelines.data.extractor import Extractor
from pipelines.jobfile.job import Job, job_from_document
from pipelines.train import Prepared, prepare
from vaecore.representations import Features, View


@pytest.fixture
def job(tiles: Path) -> Job:
    document = {
        "name": "x",
        "task": "reconstruct",
        "data": {"train": str(tiles)},
        "model": {"size": [64, 64]},
    }
    return job_from_document(document, tiles.parent / "job.toml")


def examples_of(prepared: Prepared):
    return make_examples(prepared.data, prepared.plan.image_format, prepared.representation)


def test_examples_are_what_the_graph_makes_of_the_same_pixels(job: Job) -> None:
    prepared = prepare(job)
    examples = examples_of(prepared)
    indices = prepared.data.split["calibrate"]
    pixels = torch.from_numpy(prepared.data.pixels[list(indices)])
    y = prepared.representation(prepared.plan.image_format.to_unit(pixels))
    torch.testing.assert_close(examples.batch(indices), y, rtol=0, atol=5e-3)  # kept in half precision


def test_statistics_are_those_of_the_train_split(job: Job) -> None:
    prepared = prepare(job)
    examples, features = examples_of(prepared), prepared.representation
    assert isinstance(features, Features)
    features.recentres = False  # which comes after the statistics, and takes a part of the variance away
    sharp_view = View((-2, -1), smooth=False)
    sharp = torch.cat([features.look(examples.extracted([i]), sharp_view) for i in prepared.data.split["train"]])
    torch.testing.assert_close(sharp.mean(dim=(0, 2, 3))[-112:], torch.zeros(112), rtol=0, atol=1e-3)
    torch.testing.assert_close(sharp.std(dim=(0, 2, 3), correction=0)[-112:], torch.ones(112), rtol=0, atol=1e-2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images whose features are made, a number for each call."""
    found: list[int] = []
    run = Extractor.__call__

    def counted(self: Extractor, pixels: np.ndarray) -> np.ndarray:
        found.append(len(pixels))
        return run(self, pixels)

    monkeypatch.setattr(Extractor, "__call__", counted)
    return found


def test_extracted_once_and_again_for_another_backbone(job: Job, calls: list[int]) -> None:
    first = examples_of(prepare(job))
    assert sum(calls) == 16
    assert torch.equal(examples_of(prepare(job)).batch([0, 3]), first.batch([0, 3]))
    assert sum(calls) == 16
    other = job.model_copy(update={"model": job.model.model_copy(update={"strides": (16,)})})
    assert examples_of(prepare(other)).batch([0]).shape[1] == 112
    assert sum(calls) == 32


def test_an_extraction_that_was_killed_starts_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(Exception):
        pass

    def killed(self: Extractor, pixels: np.ndarray) -> np.ndarray:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "__call__", killed)
        with pytest.raises(KilledError):
            examples_of(prepare(job))
    prepared = prepare(job)
    assert torch.isfinite(examples_of(prepared).batch([0, 1])).all()
    assert not list(prepared.data.folder.glob("*.tmp.npy"))
