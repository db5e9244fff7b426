"""Jobs with another prior: trained, registered, scored, and read back from their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.errors import JobError
from pipelines.registry.resolve import find_model
from pipelines.sample import sample_images
from pipelines.score import score_folder
from pipelines.train import train_model
from pipelines.training.weights import load_network
from vaecore.bound import elbo
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import ConvVAE
from vaecore.priors import Circumstances, MixturePrior
from vaecore.priors.autoregressive import AutoregressivePrior
from vaecore.priors.fitted import with_fitted_prior

JOB = """
name = "digits"
task = "reconstruct"
[data]
train = "good"
[model]
target = "pixels"
size = [16, 16]
likelihood = "bernoulli"
latent = "vector"
latent_channels = 2
stages = 2
width = 4
components = 3
prior = "{prior}"
[train]
steps = 20
batch = 4
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    (tmp_path / "good").mkdir()
    for number in range(30):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[number % 8 : number % 8 + 6, 4:12] = 200 + number
        Image.fromarray(pixels).save(tmp_path / "good" / f"{number}.png")
    return tmp_path / "digits.toml"


@pytest.mark.parametrize("prior", ["mixture", "fitted", "vamp"])
def test_a_model_with_it_is_a_model_like_any_other(job: Path, prior: str) -> None:
    job.write_text(JOB.format(prior=prior))
    trained = train_model(job)
    assert trained.promoted
    result = score_folder(job.parent / "good", "digits@champion", job.parent / "out")
    assert result.ok == 30
    network = load_network(find_model("digits@champion")).model  # compares it with the exported file
    assert isinstance(network, MixturePrior)
    mixture = network.mixture()
    assert mixture.mean.shape == (3, 2)
    assert torch.isfinite(mixture.mean).all()
    assert sample_images("digits@champion", 3, job.parent / "samples").is_file()


@pytest.mark.parametrize("latent", ["vector", "grid"])
def test_an_autoregressive_prior_is_trained_and_drawn_from(job: Path, latent: str) -> None:
    job.write_text(JOB.format(prior="autoregressive").replace("components = 3\n", "").replace("vector", latent))
    assert train_model(job).promoted
    network = load_network(find_model("digits@champion")).model  # compares it with the exported file
    assert isinstance(network, AutoregressivePrior)
    assert "autoregressive" in (find_model("digits@champion").card or "")
    first, again = (sample_images("digits@champion", 3, job.parent / f"{number}") for number in range(2))
    assert first.read_bytes() == again.read_bytes()


def test_what_a_prior_cannot_be_is_told(job: Path) -> None:
    job.write_text(JOB.format(prior="standard"))
    with pytest.raises(JobError, match=r"'model.components' has no meaning where 'model.prior' is standard"):
        train_model(job)
    job.write_text(JOB.format(prior="mixture"))
    with pytest.raises(JobError, match=r"'model.prior' is of one level of latents"):
        train_model(job, overrides=["model.levels=2"])


def test_an_autoencoder_is_a_model_like_any_other_whose_rate_is_nought(job: Path) -> None:
    job.write_text(JOB.format(prior="none").replace("components = 3\n", ""))
    assert train_model(job).promoted
    result = score_folder(job.parent / "good", "digits@champion", job.parent / "out")
    assert result.ok == 30
    rows = pq.read_table(job.parent / "out" / "results.parquet").to_pylist()
    assert {row["rate"] for row in rows} == {0.0}
    assert all(row["elbo"] == pytest.approx(-row["distortion"]) for row in rows)
    assert "bounds no likelihood" in (find_model("digits@champion").card or "")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (['model.prior="none"', 'model.score="iwae"'], "an importance-weighted bound needs a prior"),
        (['model.prior="none"', "train.beta=2.0"], "'train.beta' has no meaning without a prior"),
        (
            ['train.objective="iwae"', "train.free_bits=0.1"],
            "'train.free_bits' has no meaning for the importance",
        ),
        (
            ['train.objective="iwae"', 'model.likelihood="shared_gaussian"'],
            "shared_gaussian has no closed form",
        ),
        (
            ['train.objective="total_correlation"', "train.free_bits=0.1"],
            "'train.objective' is total_correlation",
        ),
    ],
)
def test_what_an_objective_cannot_be_is_told(job: Path, overrides: list[str], said: str) -> None:
    job.write_text(JOB.format(prior="standard").replace("components = 3\n", ""))
    with pytest.raises(JobError, match=said):
        train_model(job, overrides=overrides)


@pytest.mark.parametrize("objective", ["iwae", "total_correlation"])
def test_a_job_is_trained_with_another_objective(job: Path, objective: str) -> None:
    job.write_text(JOB.format(prior="standard").replace("components = 3\n", ""))
    trained = train_model(job, overrides=[f'train.objective="{objective}"', "train.steps=6"])
    assert trained.promoted
    assert np.isfinite(list(trained.figures.values())).all()
    assert "prior of the latents: standard normal" in (card := find_model("digits@champion").card or "")
    assert ("importance-weighted" in card) == (objective == "iwae")
    assert "is no bound" not in card


def test_a_weighed_rate_is_called_what_it_is(job: Path) -> None:
    job.write_text(JOB.format(prior="mixture"))
    train_model(job, overrides=["train.beta=4.0", "train.steps=6"])
    card = find_model("digits@champion").card or ""
    assert "a learned mixture of 3 Gaussians" in card
    assert "training weighed the rate by 4, with 0 nats free in each channel: what it minimised is no bound" in card


@torch.no_grad()
def test_a_fitted_prior_tightens_the_bound_of_what_it_was_fitted_to() -> None:
    """Latents in two heaps, which no single normal distribution describes."""
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1,
        size=(8, 8),
        likelihood=GaussianLikelihood(),
        latent_channels=2,
        latent_grid=False,
        width=4,
        stages=1,
    )
    network.to_posterior[1].bias.copy_(torch.tensor([0.0, 0.0, -3.0, -3.0]))
    y = torch.cat([torch.zeros(40, 1, 8, 8), torch.ones(40, 1, 8, 8)]) + 0.05 * torch.randn(80, 1, 8, 8)
    fitted = with_fitted_prior(network, [y[:40], y[40:]], Circumstances(components=2, shape=(1, 8, 8), seed=0))
    noise = torch.randn(80, 8, 2, 1, 1)
    assert elbo(fitted, y, noise).value.mean() > elbo(network, y, noise).value.mean() + 0.5
    means = network.posterior(y).mean.flatten(1)
    found = fitted.mixture().mean
    heaps = torch.stack([means[:40].mean(0), means[40:].mean(0)])
    torch.testing.assert_close(found[found[:, 0].argsort()], heaps[heaps[:, 0].argsort()], rtol=0, atol=0.05)


def test_dropout_is_of_training_alone(job: Path) -> None:
    job.write_text(JOB.format(prior="standard").replace("components = 3\n", ""))
    train_model(job, overrides=["model.dropout=0.2", "train.steps=6"])
    file = find_model("digits@champion")
    assert "training left out 20 % of inner maps" in (file.card or "")
    load_network(file)  # agrees with the exported file
    with pytest.raises(JobError, match=r"'model.dropout' is no option of the network on features"):
        train_model(job, overrides=["model.dropout=0.2", "model.target=features", "model.likelihood=gaussian"])
