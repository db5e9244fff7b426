"""The training loop: the same weights however often it was killed, Ctrl-C, damaged checkpoints, lazy validation."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.data.examples import Examples, make_examples
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.jobfile.job import load_job
from pipelines.jobfile.tables import TrainTable
from pipelines.train import prepare
from pipelines.training.fit import VALIDATION_BATCH, Batch, Fit, Recipe, fit
from vaecore.likelihoods import BernoulliLikelihood
from vaecore.representations import Pixels
from vaecore.tasks import scoring_tasks

STEPS = 40

# It learns too fast: one check in the middle does not improve, and two in a row end it long before the last step.
JOB = f"""
name = "tiles"
task = "reconstruct"
[data]
train = "{MAGNETIC_TILE / "train" / "good"}"
[model]
target = "pixels"
size = [16, 16]
stages = 2
width = 4
latent = "grid"
standardise = false
dropout = 0.1
latent_channels = 4
[train]
steps = {STEPS}
batch = 2
patience = 2
learning_rate = 0.04
"""


class KilledError(Exception):
    """Stands for a kill."""


class Runs:
    """One job's training loop, started as often as a test likes; each run has a folder of its own name."""

    def __init__(self, folder: Path) -> None:
        file = folder / "tiles.toml"
        file.write_text(JOB)
        self.job = load_job(file)
        prepared = prepare(self.job)
        self.recipe = prepared.recipe
        self.examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation)
        self.folder = folder
        self.steps: list[int] = []
        self.elbos: list[float] = []
        self.done = 0

    def network(self) -> torch.nn.Module:
        return prepare(self.job).model

    def start(self, name: str, at_check: Callable[[int], None] = lambda _: None) -> dict[str, Tensor]:
        """Start, or go on with, a run; `at_check` hears of each check by its number in this start."""
        model = self.network()
        self.steps, self.elbos = [], []

        def on_check(step: int, figures: dict[str, float]) -> None:
            self.steps.append(step)
            self.elbos.append(figures["select_elbo"])
            at_check(len(self.steps))

        self.done = fit(
            model, self.examples, self.recipe,
            folder=self.folder / name, device="cpu", on_check=on_check,
        )  # fmt: skip
        assert {path.name for path in (self.folder / name).iterdir()} == {"best.ckpt", "last.ckpt"}
        return model.state_dict()


class Whole(Runs):
    """The job, and what a run of it comes to that nothing interrupts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.weights = self.start("whole")
        self.all_steps, self.all_elbos, self.all_done = self.steps, self.elbos, self.done

    def check(self, weights: dict[str, Tensor]) -> None:
        assert self.done == self.all_done
        for name, value in self.weights.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=0, equal_nan=True, msg=name)

    def without_gain(self) -> int:
        """The number of a check that did not improve and was not the end."""
        best = np.maximum.accumulate(self.all_elbos)
        return 1 + next(i for i in range(1, len(best) - 2) if best[i] == best[i - 1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("fit"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A folder of its own for each test."""
    return request.node.name


def kill_at(number: int) -> Callable[[int], None]:
    def at_check(check: int) -> None:
        if check == number:
            raise KilledError

    return at_check


def test_a_run_that_stopped_early_stays_stopped(runs: Whole, name: str) -> None:
    """Export or the registry failed, and the job is started again and again."""
    assert runs.all_done < STEPS
    runs.check(runs.start(name))
    for _ in range(4):
        runs.check(runs.start(name))
        assert runs.steps == []


def test_a_run_goes_on_after_a_check_that_did_not_improve(runs: Whole, name: str) -> None:
    number = runs.without_gain()
    with pytest.raises(KilledError):
        runs.start(name, kill_at(number + 1))
    runs.check(runs.start(name))
    assert runs.steps == runs.all_steps[number:]
    assert runs.elbos == runs.all_elbos[number:]


def test_a_run_that_is_killed_in_every_stretch_gives_the_same_weights(runs: Whole, name: str) -> None:
    for step in runs.all_steps[1:]:
        with pytest.raises(KilledError):
            runs.start(name, kill_at(2))
        assert runs.steps[-1] == step
    runs.check(runs.start(name))


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_a_run_that_is_killed_around_its_files_gives_the_same_weights(
    runs: Whole, name: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that improves writes two files; the kill falls before, between and after them."""
    save = L.Trainer.save_checkpoint
    left = 0

    def save_and_die(self: L.Trainer, *arguments: object) -> None:
        nonlocal left
        left -= 1
        if left or after:
            save(self, *arguments)
        if not left:
            raise KilledError

    monkeypatch.setattr(L.Trainer, "save_checkpoint", save_and_die)
    for saves in (1, 2, 3, 4, 5):
        left = saves
        with pytest.raises(KilledError):
            runs.start(name)
    runs.check(runs.start(name))


def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_its_handler(runs: Whole, name: str) -> None:
    def press(check: int) -> None:
        if check == 3:
            signal.raise_signal(signal.SIGINT)

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            runs.start(name, press)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    runs.check(runs.start(name))
    assert runs.steps == runs.all_steps[2:]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("file", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint_means_a_fresh_start(
    runs: Whole, name: str, file: str, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KilledError):
        runs.start(name, kill_at(4))
    path = runs.folder / name / file
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with caplog.at_level(logging.WARNING, "pipelines.training.loop"):
        runs.check(runs.start(name))
    assert runs.steps == runs.all_steps
    assert [record.levelname for record in caplog.records if str(path) in record.getMessage()] == ["WARNING"]


def test_a_missing_best_checkpoint_means_a_fresh_start(runs: Whole, name: str) -> None:
    runs.start(name)
    (runs.folder / name / "best.ckpt").unlink()
    runs.check(runs.start(name))
    assert runs.steps == runs.all_steps


def test_validation_makes_pieces_of_sixteen_when_they_are_asked_for(
    runs: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.arange(len(set().union(*runs.examples.split.values())))
    monkeypatch.setitem(runs.examples.split, "select", images.tolist())
    sizes: list[int] = []
    batch = Examples.batch

    def counted(self: Examples, indices: np.ndarray, chance: torch.Generator) -> Tensor:
        sizes.append(len(indices))
        return batch(self, indices, chance)

    monkeypatch.setattr(Examples, "batch", counted)
    loader = Fit(runs.network(), runs.examples, runs.recipe).val_dataloader()
    assert sizes == []
    pieces = iter(loader)
    first = next(pieces).y
    assert sizes == [len(first)]
    assert first.is_contiguous(memory_format=torch.channels_last)
    seen = torch.cat([first, *(piece.y for piece in pieces)])
    assert max(sizes) <= VALIDATION_BATCH < len(images) == sum(sizes)
    assert torch.equal(seen, batch(runs.examples, images))


def test_few_images_on_features_are_trained_with_noise_unless_the_job_says_otherwise() -> None:
    targets = scoring_tasks()["reconstruct"].targets
    table = TrainTable()
    assert Recipe.of(table, targets["features"], 47).corruption == "noise"
    assert Recipe.of(table, targets["features"], 400).corruption == "none"
    assert Recipe.of(table, targets["pixels"], 47).corruption == "none"
    assert Recipe.of(TrainTable(corruption="none"), targets["features"], 47).corruption == "none"


def test_noise_reaches_the_encoder_and_never_the_bound(runs: Whole, name: str) -> None:
    """Trained with noise the weights differ; the held-out bound is taken without it, and a run goes on exactly."""
    noisy = replace(runs.recipe, corruption="noise")
    module = Fit(runs.network(), runs.examples, noisy)
    batch = Batch(runs.examples.batch([0, 1]), runs.examples.labels_of([0, 1]))
    plain = Fit(runs.network(), runs.examples, runs.recipe)
    assert not torch.equal(module.training_step(batch, 0), plain.training_step(batch, 0))
    assert torch.equal(module.training_step(batch, 0), module.training_step(batch, 0))


def test_shades_of_grey_are_probabilities_of_white_anew_each_time() -> None:
    """Where y is black or white: training draws it, a check always the same, and scoring rounds."""
    shades = np.full((4, 8, 8, 1), 64, np.uint8)
    pixels = Pixels(channels=1, size=(8, 8), levels=1)
    splits = {"train": (0, 1, 2), "select": (3,), "calibrate": ()}
    examples = Examples(shades, lambda rows: rows.permute(0, 3, 1, 2) / 255, splits, (8, 8), pixels)
    model = (
        scoring_tasks()["reconstruct"]
        .targets["pixels"]
        .network(channels=1, size=(8, 8), likelihood=BernoulliLikelihood(), stages=1, width=4, latent_channels=2)
    )
    module = Fit(model, examples, Recipe(steps=4000, batch=2, learning_rate=1e-3, seed=2**40))
    drawn = torch.cat([batch.y for batch in module.train_dataloader()])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - 64 / 255) < 0.02
    assert not torch.equal(drawn[0], drawn[2])
    for first, again in zip(module.val_dataloader(), module.val_dataloader(), strict=True):
        assert torch.equal(first.y, again.y)
        assert set(first.y.unique().tolist()) == {0.0, 1.0}
    assert not examples.batch([0]).any(), "scoring has no chance to draw: 64 of 255 is black"
