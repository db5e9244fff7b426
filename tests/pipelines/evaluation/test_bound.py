"""Bounds of held-out images: those of the exported file, tighter with more samples, the same each time."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import DataError, FolderError, ModelError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.bound import evaluate_bound
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.registry.resolve import find_model
from pipelines.train import train_model
from vaecore.networks import LinearVAE
from vaecore.priors import Autoencoder

JOB = """
name = "digits"
task = "reconstruct"
data.train = "good"
train = {steps = 60, batch = 8}
[model]
target = "pixels"
size = [16, 16]
likelihood = "bernoulli"
latent = "vector"
latent_channels = 4
stages = 2
width = 4
"""


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(folder / "home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bars, and bars that it has not seen, one of them grey."""
    folder = tmp_path_factory.mktemp("bound")
    for name, count in (("good", 40), ("unseen", 6)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = np.zeros((16, 16), np.uint8)
            pixels[number % 8 : number % 8 + 6, number % 5 : 10] = 255 - number % 3
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    Image.fromarray(np.full((16, 16), 128, np.uint8)).save(folder / "unseen" / "grey.png")
    (folder / "unseen" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (folder / "digits.toml").write_text(JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        train_model(folder / "digits.toml")
        yield folder


def test_more_samples_are_tighter_and_the_figures_repeat(folder: Path) -> None:
    one = evaluate_model(folder / "unseen", "digits@champion", bound=1)
    many = evaluate_model(folder / "unseen", "digits@champion", bound=300, json_path=folder / "bound.json")
    assert one["iwae"] == pytest.approx(one["elbo"], abs=1.0)  # with one sample it is another estimate of the same
    assert many["elbo"] < many["iwae"] < 0
    assert many["elbo"] == pytest.approx(-(many["rate"] + many["distortion"]), rel=1e-5)
    assert (many["n_images"], many["n_failed"], many["dims"]) == (7, 1, 256)
    assert many["bits_per_dim"] == pytest.approx(-many["iwae"] / 256 / math.log(2))
    assert json.loads((folder / "bound.json").read_text()) == many
    assert evaluate_model(folder / "unseen", "digits@champion", bound=300) == many
    assert "nats an image (300 samples" in next(describe_evaluation(many))


def test_parts_of_the_samples_make_the_same_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short; the samples are others, so only nearly the same."""
    file = find_model("digits@champion")
    whole = evaluate_bound(folder / "unseen", file, 400)
    monkeypatch.setattr("pipelines.evaluation.bound.MOST_VALUES", 256 * 150)
    parts = evaluate_bound(folder / "unseen", file, 400)
    assert parts["iwae"] == pytest.approx(whole["iwae"], abs=2 * whole["iwae_error"] + 0.5)
    assert parts["elbo"] == pytest.approx(whole["elbo"], abs=2 * whole["iwae_error"] + 0.5)


def test_one_image_has_no_standard_error(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "unseen" / "0.png", tmp_path)
    figures = evaluate_model(tmp_path, "digits@champion", bound=2)
    assert figures["iwae_error"] is None
    assert "2 samples; of one image: no standard error" in next(describe_evaluation(figures))


def test_an_autoencoder_bounds_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = LinearVAE(channels=1, size=(2, 2), latents=1)
    graph = SimpleNamespace(model=Autoencoder(network))
    monkeypatch.setattr("pipelines.evaluation.bound.load_network", lambda _: graph)
    with pytest.raises(
        ModelError, match="is an autoencoder: it has no prior, so its likelihood has no bound to measure"
    ):
        evaluate_model(folder / "unseen", "digits@champion", bound=2)


@pytest.mark.parametrize(("option", "there"), [({"bound": 2}, "test/good"), ({"probe": 4}, "test")])
def test_masks_are_no_images(folder: Path, tmp_path: Path, option: dict[str, int], there: str) -> None:
    for name in ("test/good", "ground_truth/scratch"):
        shutil.copytree(folder / "unseen", tmp_path / name)
    with pytest.raises(FolderError, match=f"holds masks, in ground_truth: give .*/{there}$"):
        evaluate_model(tmp_path, "digits@champion", **option)


def test_other_options_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="--regret has no meaning for a model that is asked for its bound"):
        evaluate_model(folder / "unseen", "digits@champion", bound=10, regret=True)
    with pytest.raises(DataError, match="--bound has no meaning for a model that restores images"):
        evaluate_model(folder / "unseen", "builtin:denoise", bound=10)
