"""Mending without pairs: two folders, a damage that is learned, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import evaluate_model, restore_folder, train_model
from pipelines.data.crop_images import CropImages, load_crop_images
from pipelines.data.file_digests import contents_of
from pipelines.data.plan import survey
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError, JobError
from pipelines.image_to_image.fit import CropRecipe
from pipelines.image_to_image.unpaired import FitUnpaired, LearnedDamage, UnpairedTraining, estimate_noise
from pipelines.images import find_images
from pipelines.jobfile.job import Job, load_job
from pipelines.models.session import RestoringSession
from pipelines.registry.resolve import find_model
from pipelines.training.adversary import Opposition
from pipelines.training.loop import run
from pipelines.training.need import need_of
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import Restorer
from vaecore.representations.image_format import ImageFormat

STEPS, SIGMA = 24, 25


class KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Some clean tiles, and others with noise."""
    files = sorted((MAGNETIC_TILE / "train" / "good").iterdir())
    random = np.random.default_rng(0)
    for name, some in (("clean", files[:12]), ("noisy", files[12:24])):
        (tmp_path / name).mkdir()
        for path in some:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L"), float)[:128, :128]
            noise = SIGMA * random.standard_normal(pixels.shape) * (name == "noisy")
            Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8)).save(
                tmp_path / name / f"{path.stem}.png"
            )
    return tmp_path


def job(folder: Path, data: str = 'degraded = "noisy"\nclean = "clean"', task: str = "unpaired", more: str = "") -> Job:
    path = folder / "job.toml"
    path.write_text(f'name = "mend"\ntask = "{task}"\n[data]\n{data}\n{more}')
    return load_job(path)


def read(folder: Path) -> tuple[CropImages, dict]:
    asked = job(folder)
    return UnpairedTraining(asked).read(survey(asked).image_format)


def test_both_folders_are_read_and_never_mixed(folders: Path) -> None:
    images, split = read(folders)
    assert (images.image_format.channels, len(images)) == (1, 24)
    where = {name: {images.files[index].path.parent.name for index in indices} for name, indices in split.items()}
    assert where == {
        "train": {"clean"}, "select": {"clean"}, "calibrate": {"clean"}, "degraded": {"noisy"},
        "degraded_select": {"noisy"},
    }  # fmt: skip
    assert sorted(index for indices in split.values() for index in indices) == list(range(24))


def test_the_damage_begins_with_noise_as_strong_as_theirs(folders: Path) -> None:
    assert 255 * estimate_noise(*read(folders)) == pytest.approx(SIGMA, rel=0.15)  # less what clipping takes


@pytest.mark.parametrize("opposition", [None, Opposition(weight=0.2, kind="minmax", alone=0.4)])
def test_a_killed_run_gives_the_same_weights(folders: Path, opposition: Opposition | None) -> None:
    images, split = read(folders)

    def module() -> FitUnpaired:
        torch.manual_seed(0)
        network = Restorer(channels=1, outputs=1, widths=(8, 12), blocks=(1, 1))
        recipe = CropRecipe(steps=STEPS, batch=2, crop=32, learning_rate=2e-3)
        damage = Opposition(weight=1.0)
        return FitUnpaired(
            network, GaussianLikelihood(), images, split, 0.1, recipe, damage=damage, opposition=opposition
        )

    seen: list[dict[str, float]] = []
    whole, again = module(), module()
    run(whole, folder=folders / "a", device="cpu", on_check=lambda _, figures: seen.append(figures))
    assert {"select_psnr", "damage_grain", "damage_accuracy"} <= seen[0].keys()
    assert len({each["damage_real"] for each in seen}) > 5
    assert len({each["damage_real"] for each in seen[-3:]}) == 1  # it has been learned by then: the last one is kept
    assert ("adversary_share" in seen[-1]) == (opposition is not None)

    def kill(step: int, _: dict[str, float]) -> None:
        if step >= STEPS // 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(module(), folder=folders / "b", device="cpu", on_check=kill)
    run(again, folder=folders / "b", device="cpu", on_check=lambda *_: None)
    moved = 0
    begun = module().state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        moved += name.startswith("damage.degrader") and not torch.equal(value, begun[name])
    assert moved > 4  # what is kept is the damage as it was learned
    ended = module()
    run(ended, folder=folders / "b", device="cpu", on_check=lambda *_: None)  # it is read, not trained
    for name, value in whole.state_dict().items():
        assert torch.equal(value, ended.state_dict()[name]), name


def test_a_damage_learns_what_damaged_images_have() -> None:
    """From noise that is half as strong as it should be, on plain grey."""
    torch.manual_seed(0)
    damage = LearnedDamage(1, 0.05, Opposition(weight=1.0), seed=0, largest=255)
    chance = torch.Generator().manual_seed(0)
    y = torch.full((8, 1, 32, 32), 0.5)

    def strength() -> float:
        return float(damage(y, torch.Generator().manual_seed(1)).detach().std())

    assert strength() == pytest.approx(0.05, rel=0.1)
    for step in range(150):
        real = y + 0.1 * torch.randn(y.shape, generator=chance)
        damage.learn(y, real, chance, step)
    assert 0.06 < strength() < 0.11


def test_from_job_to_report_it_says_that_twins_were_never_seen(folders: Path) -> None:
    asked = job(folders, more=f"[train]\nsteps = {STEPS}\nbatch = 2\ncrop = 32\n")
    assert train_model(asked).promoted
    model = find_model("mend@champion")
    metadata = RestoringSession(model, device="cpu", threads=1).metadata
    assert (metadata.task, metadata.damage, metadata.scale, metadata.adversarial) == ("unpaired", "learned", 1, None)
    assert metadata.images["degraded"] + metadata.images["degraded_select"] == 12
    card = model.card or ""
    assert "**Clean twins were never seen**" in card
    assert "12 damaged images under `noisy`" in card
    assert "12 different images under `clean`" in card
    split = json.loads((model.folder / "split.json").read_text())
    assert len(split["degraded"]) == metadata.images["degraded"]
    assert len(model.trained_on) == metadata.images["train"] + metadata.images["degraded"]

    summary = restore_folder(folders / "noisy", model, folders / "out")
    assert (summary.ok, summary.failed) == (12, 0)
    page = (folders / "out" / "report.html").read_text(encoding="utf-8")
    assert "trained without pairs of a damaged and a clean image" in page
    with pytest.raises(DataError, match=r"trained without pairs, .*kintsugi restore DAMAGED --reference CLEAN"):
        evaluate_model(folders / "clean", model.path)

    assert not need_of(asked).train  # nothing is new, in either folder
    (folders / "noisy" / sorted(path.name for path in (folders / "noisy").iterdir())[0]).unlink()
    need = need_of(asked)
    assert need.train
    assert "1 file is gone" in need.reason


def test_an_image_that_moves_to_the_other_folder_is_another(folders: Path) -> None:
    before = contents_of(job(folders))
    moved = next((folders / "noisy").iterdir())
    moved.rename(folders / "clean" / moved.name)
    after = contents_of(job(folders))
    assert (len(before - after), len(after - before)) == (1, 1)


def test_too_few_damaged_images_are_told(folders: Path) -> None:
    for path in sorted((folders / "noisy").iterdir())[5:]:
        path.unlink()
    asked = job(folders)
    with pytest.raises(DataError, match=r"there are 5 different readable images under .*noisy .* needs at least 10"):
        UnpairedTraining(asked).read(ImageFormat(channels=1, bit_depth=8))


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("unpaired", 'train = "clean"', r"'data.train' is not enough for unpaired: give 'data.degraded' and"),
        ("unpaired", 'degraded = "noisy"', r"'data.clean' is missing; 'data.degraded' needs it"),
        ("unpaired", 'clean = "clean"', r"'data.degraded' is missing; 'data.clean' needs it"),
        ("unpaired", 'clean = "clean"\ndegraded = "clean"', r"are both clean: put damaged and clean images into two"),
        ("denoise", 'clean = "clean"\ndegraded = "noisy"', r"are for the task unpaired; denoise takes 'data.train'"),
        ("denoise", 'train = "a"\nclean = "b"', r"'data.train' and 'data.clean': give either the one, or the two"),
        ("denoise", 'licence = "x"', r"'data.train' is missing, and it is required \(for the task unpaired"),
    ],
)
def test_exactly_one_of_the_two_forms_is_taken(tmp_path: Path, task: str, data: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        job(tmp_path, data, task)


def test_options_of_other_tasks_are_refused(folders: Path) -> None:
    with pytest.raises(JobError, match=r"'model.damage' has no meaning for unpaired; leave it out"):
        UnpairedTraining(job(folders, more="[model]\ndamage = 'gaussian'"))


def test_photos_of_two_folders_keep_their_order(folders: Path) -> None:
    files = [*find_images(folders / "clean"), *find_images(folders / "noisy")]
    images = load_crop_images(files, ImageFormat(channels=1, bit_depth=8))
    assert [file.path for file in images.files] == [file.path for file in files]
