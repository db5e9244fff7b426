"""Adversarial training of models that mend: a killed run gives the same weights, and what came of it is said."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines import restore_folder, train_model
from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import JobError
from pipelines.image_to_image.fit import TRIAL_SPAN, TRIAL_STEPS, CropRecipe, estimate_steps
from pipelines.image_to_image.restorer import FitRestorer
from pipelines.images import find_images
from pipelines.jobfile.job import Job, load_job
from pipelines.models.session import RestoringSession
from pipelines.registry.resolve import find_model
from pipelines.train import crop_training
from pipelines.training.adversary import PATIENCE, Adversary, Opposition
from pipelines.training.loop import run
from vaecore.damage.degradations import gaussian_noise, smaller
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.representations.image_format import ImageFormat

GOOD = MAGNETIC_TILE / "train" / "good"
STEPS = 40


class KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture
def images() -> CropImages:
    return load_crop_images(find_images(GOOD)[:12], ImageFormat(channels=1, bit_depth=8))


def noisy(y: Tensor, generator: torch.Generator) -> Tensor:
    return gaussian_noise(y, 25.0, generator)


def half(y: Tensor, generator: torch.Generator) -> Tensor:
    del generator
    return smaller(y, 2)


def module(images: CropImages, opposition: Opposition, upscale: int = 1) -> FitRestorer:
    torch.manual_seed(0)
    network = Restorer(channels=1, outputs=1, widths=(8, 12), blocks=(1, 1), upscale=upscale)
    split = {"train": range(3, len(images)), "select": range(3)}
    recipe = CropRecipe(steps=STEPS, batch=2, crop=32, learning_rate=2e-3)
    damaged = noisy if upscale == 1 else half
    return FitRestorer(network, GaussianLikelihood(), images, split, damaged, recipe, opposition=opposition)


@pytest.mark.parametrize(("kind", "upscale"), [("hinge", 1), ("minmax", 2)])
def test_a_killed_run_gives_the_same_weights(images: CropImages, tmp_path: Path, kind, upscale: int) -> None:
    opposition = Opposition(weight=1.0, kind=kind, alone=0.3)
    seen: dict[int, dict[str, float]] = {}
    whole = module(images, opposition, upscale)
    run(whole, folder=tmp_path / "a", device="cpu", on_check=seen.__setitem__)
    before, after = seen[8], seen[STEPS]
    assert not any(name.startswith("adversary") for name in before)  # it trains alone at first
    assert {f"adversary_{name}" for name in ("real", "made", "accuracy", "share", "factor")} <= after.keys()
    assert after["adversary_share"] == pytest.approx(0.5, abs=0.01)  # as hard as the error, once it has come into force

    def kill(step: int, _: dict[str, float]) -> None:
        if step >= STEPS // 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(module(images, opposition, upscale), folder=tmp_path / "b", device="cpu", on_check=kill)
    again = module(images, opposition, upscale)
    run(again, folder=tmp_path / "b", device="cpu", on_check=lambda *_: None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_minutes_are_counted_over_all_phases_of_a_run(images: CropImages, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = module(images, Opposition(weight=1.0, alone=0.5))
    tried.recipe = replace(tried.recipe, steps=TRIAL_SPAN)
    learned: list[int] = []
    assert tried.adversary is not None
    monkeypatch.setattr(tried.adversary, "learn", lambda *given: learned.append(given[2]))
    estimate_steps(10.0, tried, "cpu")
    assert len(learned) == TRIAL_STEPS // 2  # as in the run, half of the steps have a discriminator
    assert {step % 2 for step in learned} == {0, 1}


def test_a_trial_for_minutes_leaves_a_new_training_as_it_was(images: CropImages) -> None:
    tried, fresh = (module(images, Opposition(weight=1.0)) for _ in range(2))
    assert estimate_steps(10.0, tried, "cpu") > 0
    for name, value in fresh.model.state_dict().items():
        assert torch.equal(value, tried.model.state_dict()[name]), name


def test_a_won_and_a_lost_game_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    adversary = Adversary(1, Opposition(weight=1.0), seed=0)

    def check(real: float, made: float, accuracy: float) -> None:
        values = {"real": real, "made": made, "accuracy": accuracy}
        adversary._note(**{name: torch.tensor(value) for name, value in values.items()})
        adversary.figures()

    with caplog.at_level(logging.WARNING):
        for _ in range(PATIENCE - 1):
            check(3.0, -3.0, 1.0)
        check(1.0, -1.0, 0.8)
        for _ in range(PATIENCE - 1):
            check(3.0, -3.0, 1.0)
        assert not caplog.records
        check(3.0, -3.0, 1.0)
        check(3.0, -3.0, 1.0)
        assert [record.getMessage().split(": ")[1][:10] for record in caplog.records] == ["it has won"]
        for _ in range(PATIENCE + 1):
            check(0.1, 0.1, 0.5)
    assert [record.getMessage().split(": ")[1][:11].strip(",") for record in caplog.records] == [
        "it has won",
        "it has lost",
    ]


def job(folder: Path, task: str = "denoise", *, data: str = f'train = "{GOOD}"', **tables: str) -> Job:
    body = "\n".join(f"[{name}]\n{text}" for name, text in tables.items())
    path = folder / "job.toml"
    path.write_text(f'name = "sharp"\ntask = "{task}"\n[data]\n{data}\n{body}')
    return load_job(path)


def test_from_job_to_report_it_says_sharp_before_faithful(tmp_path: Path, tiles: Path) -> None:
    train = "steps = 12\nbatch = 2\ncrop = 32\nadversarial = 0.5\nadversarial_loss = 'minmax'"
    asked = job(tmp_path, data=f'train = "{tiles}"', train=train, model="level = 25\ndamage = 'gaussian'")
    assert train_model(asked).promoted
    model = find_model("sharp@champion")
    metadata = RestoringSession(model, device="cpu", threads=1).metadata
    assert metadata.adversarial == 0.5
    assert "**Sharp before faithful**" in (model.card or "")
    assert "may be made up" in (model.card or "")
    summary = restore_folder(tiles, model, tmp_path / "out")
    assert (summary.ok, summary.failed) == (16, 0)
    assert "This model prefers sharp images to faithful ones" in (tmp_path / "out" / "report.html").read_text(
        encoding="utf-8"
    )
    # A plain model is another thing: PSNR would not compare the two.
    plain = job(tmp_path, data=f'train = "{tiles}"', train="steps = 1", model="level = 25\ndamage = 'gaussian'")
    with pytest.raises(JobError, match=r"champion of 'sharp' does .*sharp before faithful \(0.5\), this job"):
        train_model(plain)


def test_older_files_are_plain() -> None:
    session = RestoringSession(find_model("builtin:denoise"), device="cpu", threads=1)
    assert session.metadata.adversarial is None


def test_when_the_term_sets_in(tmp_path: Path) -> None:
    assert Opposition.of(job(tmp_path).train) is None
    assert Opposition.of(job(tmp_path, train="adversarial = 2").train) == Opposition(
        weight=2.0, kind="hinge", alone=0.5
    )
    begun = job(tmp_path, train="adversarial = 1\nadversarial_loss = 'minmax'\nstart = 'builtin:denoise'")
    assert Opposition.of(begun.train) == Opposition(weight=1.0, kind="minmax", alone=0.0)


@pytest.mark.parametrize(
    ("task", "data", "train", "message"),
    [
        ("denoise", f'train = "{GOOD}"', "adversarial_loss = 'minmax'", "there is no 'train.adversarial'"),
        ("denoise", f'train = "{GOOD}"', "adversarial = 0", "'train.adversarial' is 0: Input should be greater than 0"),
        ("colorize", f'train = "{GOOD}"', "adversarial = 1", "'train.adversarial' has no meaning for colorize"),
        (
            "segment",
            f'train = "{GOOD}"\nlabels = "x"',
            "adversarial = 1",
            "'train.adversarial' has no meaning for segment",
        ),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(tmp_path: Path, task: str, data: str, train: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        crop_training(job(tmp_path, task, data=data, train=train))
