"""The VAE-GAN: an adversarial term beside the bound of a VAE of pixels, which is reported as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines import train_model
from pipelines.data.examples import make_examples
from pipelines.errors import JobError
from pipelines.jobfile.job import Job, load_job
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.train import prepare
from pipelines.training.fit import fit

STEPS = 24


class KilledError(Exception):
    """Stands for a kill."""


def job(folder: Path, images: Path, train: str = "adversarial = 0.5", model: str = "", target: str = "pixels") -> Job:
    path = folder / "job.toml"
    path.write_text(f"""
name = "gan"
task = "reconstruct"
[data]
train = "{images}"
[model]
target = "{target}"
{model}
[train]
steps = {STEPS}
batch = 2
{train}
""")
    return load_job(path)


SMALL = "size = [16, 16]\nstages = 2\nwidth = 4\nlatent_channels = 4\nstandardise = false\nsamples = 1"


@pytest.mark.parametrize("kind", ["hinge", "minmax"])
def test_a_killed_run_gives_the_same_weights(tmp_path: Path, tiles: Path, kind: str) -> None:
    asked = job(tmp_path, tiles, f"adversarial = 0.5\nadversarial_loss = '{kind}'", SMALL)
    prepared = prepare(asked)
    assert prepared.recipe.patience is None  # the bound is at its best before the term sets in
    examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation)
    seen: list[dict[str, float]] = []

    def start(name: str, killed_at: int = STEPS + 1) -> dict[str, torch.Tensor]:
        model = prepare(asked).model

        def on_check(step: int, figures: dict[str, float]) -> None:
            seen.append(figures)
            if step >= killed_at:
                raise KilledError

        fit(model, examples, prepared.recipe, folder=tmp_path / name, device="cpu", on_check=on_check)
        return model.state_dict()

    whole = start("a")
    assert "adversary_share" not in seen[0]
    assert {"select_elbo", "adversary_real", "adversary_made", "adversary_accuracy"} <= seen[-1].keys()
    with pytest.raises(KilledError):
        start("b", STEPS * 2 // 3)
    again = start("b")
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name
    for name, value in start("b").items():  # an ended run is read, not trained
        assert torch.equal(value, again[name]), name


def test_the_card_says_that_more_than_the_bound_was_trained(tmp_path: Path, tiles: Path) -> None:
    train_model(job(tmp_path, tiles, "adversarial = 0.5", SMALL))
    file = find_model("gan@champion")
    assert Session(file, device="cpu").metadata.adversarial == 0.5
    card = file.card or ""
    assert "training did not maximise the bound alone" in card
    assert "the reported `elbo` is the plain bound" in card


@pytest.mark.parametrize(
    ("train", "model", "target", "message"),
    [
        (
            "adversarial = 1",
            "",
            "features",
            "'train.adversarial' needs 'model.target' pixels: nobody looks at features",
        ),
        ("adversarial = 1", "prior = 'mixture'", "pixels", "needs the standard prior"),
        ("adversarial = 1", "prior = 'none'", "pixels", "needs the standard prior"),
        ("adversarial = 1\nobjective = 'iwae'", "", "pixels", "has no meaning where 'train.objective' is iwae"),
        ("adversarial = 1", "likelihood = 'bernoulli'", "pixels", "has no meaning for black-and-white y"),
        ("adversarial = 1\npatience = 3", "", "pixels", "'train.patience' has no meaning with 'train.adversarial'"),
        ("adversarial_loss = 'minmax'", "", "pixels", "there is no 'train.adversarial'"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(
    tmp_path: Path, tiles: Path, train: str, model: str, target: str, message: str
) -> None:
    with pytest.raises(JobError, match=message):
        prepare(job(tmp_path, tiles, train, model, target))
