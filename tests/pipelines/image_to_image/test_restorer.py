"""The training of models that mend images, start to registered model, on real photographs of tiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import train_model
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError, JobError, ModelError
from pipelines.image_to_image.restorer import RestorerTraining
from pipelines.image_to_image.warm_start import hold_out_unseen
from pipelines.jobfile.job import Job, load_job
from pipelines.models.model_file import ModelFile
from pipelines.models.session import RestoringSession, Session
from pipelines.registry.resolve import find_model
from pipelines.registry.store import Registry

GOOD = MAGNETIC_TILE / "train" / "good"


def job(folder: Path, task: str = "denoise", *, images: Path = GOOD, **tables: str) -> Job:
    body = "\n".join(f"[{name}]\n{text}" for name, text in tables.items())
    path = folder / "job.toml"
    path.write_text(f'name = "mend"\ntask = "{task}"\n[data]\ntrain = "{images}"\nlicence = "CC BY 4.0"\n{body}')
    return load_job(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RestoringSession:
    folder = tmp_path_factory.mktemp("mend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        asked = job(folder, train="steps = 60\nbatch = 4\ncrop = 48", model="level = 25\ndamage = 'gaussian'")
        result = train_model(asked)
        assert result.promoted
        assert not list((folder / "home" / "runs").rglob("*.ckpt"))  # registered: checkpoints have done their work
        return RestoringSession(find_model("mend@champion"), device="cpu", threads=1)


def test_what_is_registered_takes_noise_out(trained: RestoringSession) -> None:
    metadata = trained.metadata
    assert (metadata.task, metadata.scale, metadata.strengths, metadata.levels) == ("denoise", 1, (25, 25), (25,))
    assert metadata.licence == "CC BY 4.0"
    tile = np.asarray(Image.open(sorted(GOOD.iterdir())[0]).convert("L"), np.float32)[None, :128, :128, None] / 255
    noisy = tile + np.random.default_rng(0).normal(0, 25 / 255, tile.shape).astype(np.float32)
    restored, scale = trained.run(noisy)
    assert ((restored - tile) ** 2).mean() < 0.5 * ((noisy - tile) ** 2).mean()
    inside = np.abs(restored - tile) <= metadata.intervals["0.9"] * scale
    assert 0.75 < inside.mean() < 0.99


def test_the_bundle_says_what_it_is(trained: RestoringSession) -> None:
    card = trained.model.card
    assert card is not None
    assert "CC BY 4.0" in card
    assert "90%" in card
    assert "level = 25.0" in (trained.model.folder / "job.toml").read_text()
    split = json.loads((trained.model.folder / "split.json").read_text())
    assert all(split[name] for name in ("train", "select", "calibrate"))


def test_a_model_that_mends_does_not_score(trained: RestoringSession) -> None:
    with pytest.raises(ModelError, match="restores images: use `kintsugi restore`"):
        Session(trained.model)


@pytest.mark.parametrize(
    ("task", "tables", "message"),
    [
        ("denoise", {"model": "scale = 2"}, "'model.scale' has no meaning for denoise"),
        ("denoise", {"model": "samples = 9"}, "'model.samples' has no meaning for denoise"),
        ("denoise", {"model": "damage = 'rain'"}, "knows mixed, gaussian, poisson, speckle"),
        ("denoise", {"model": "level = 80"}, "'model.level' is 80: .* from 0 to 55"),
        ("denoise", {"train": "steps = 3\nminutes = 1"}, "both say how long"),
        ("super_resolution", {"model": "level = 2"}, "has 'model.scale'"),
    ],
)
def test_what_a_task_cannot_be_is_refused(tmp_path: Path, task: str, tables: dict[str, str], message: str) -> None:
    with pytest.raises(JobError, match=message):
        RestorerTraining(job(tmp_path, task, **tables))


def test_all_that_a_task_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"model": "scale = 2\ndamage = 'rain'\nlevel = 80", "train": "steps = 3\nminutes = 1"}
    with pytest.raises(JobError) as told:
        RestorerTraining(job(tmp_path, **wrong))
    keys = [line.removeprefix(f"{tmp_path / 'job.toml'}: ").split()[0] for line in str(told.value).splitlines()]
    assert keys == ["'model.scale'", "'train.steps'", "'model.damage'", "'model.level'"]


def test_choices_that_are_left_open(tmp_path: Path) -> None:
    training = RestorerTraining(job(tmp_path))
    damage = training.damage
    assert (training.size, training.scale, damage.name, damage.strengths) == ("S", 1, "mixed", (0, 55))
    assert damage.levels == (15, 25, 50)
    larger = RestorerTraining(job(tmp_path, "super_resolution", model="scale = 3"))
    assert (larger.scale, larger.damage.strengths, larger.damage.levels) == (3, (3, 3), (3,))
    assert larger.damage.apply(torch.rand(2, 1, 12, 18), torch.Generator()).shape == (2, 1, 4, 6)


def test_minutes_become_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pipelines.image_to_image.plan.estimate_steps", lambda seconds, *_: round(seconds / 30))
    train_model(job(tmp_path, "dejpeg", train="minutes = 1\nbatch = 2\ncrop = 32"))
    (version,) = Registry().versions("mend")
    assert version.metrics["steps"] == 2


def test_training_begins_with_the_weights_of_another_model(
    trained: RestoringSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One step at a tenth of nothing leaves them as they were."""
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    with caplog.at_level("INFO"):
        train_model(job(tmp_path, train=f"steps = 1\nbatch = 2\nlearning_rate = 1e-9\nstart = '{trained.model.path}'"))
    assert "100 % of its weights" in caplog.text
    again = RestoringSession(find_model("mend@champion"), device="cpu", threads=1)
    tile = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    np.testing.assert_allclose(again.run(tile)[0], trained.run(tile)[0], atol=1e-5)


def test_images_that_the_first_model_knows_are_not_held_out(tmp_path: Path, caplog) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    (tmp_path / "split.json").write_text('{"train": ["b", "d", "x"], "files": ["a"]}')
    begun = ModelFile(path, "", "mend/1")
    split = {"train": (0, 4), "select": (1, 2), "calibrate": (3, 5)}
    apart = {"train": (0, 1, 3, 4), "select": (2,), "calibrate": (5,)}
    assert hold_out_unseen(split, "abcdef", begun) == apart
    assert hold_out_unseen({**split, "select": (1,)}, "abcdef", begun) == {**split, "select": (1,)}
    assert "error bars will be too narrow" in caplog.text


def test_what_the_first_model_learned_damage_from_is_never_clean(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    (tmp_path / "split.json").write_text('{"train": ["a", "c"], "select": ["d"], "degraded": ["e", "f"], "files": []}')
    begun = ModelFile(path, "", "archive/1")
    split = {"train": (0, 1), "select": (2, 3), "calibrate": (8,), "degraded": (4, 6), "degraded_select": (5, 7)}
    apart = {"train": (0, 1, 2), "select": (3,), "calibrate": (8,), "degraded": (4, 5, 6), "degraded_select": (7,)}
    assert hold_out_unseen(split, "abcdefghi", begun) == apart
    none_new = {**split, "degraded": (4,), "degraded_select": (5,)}
    assert hold_out_unseen(none_new, "abcdefghi", begun)["degraded_select"] == (5,)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("builtin:denoise", r"weight is \[\d+, .* there and \[\d+, .* here"),
        ("builtin:super_resolution_x4", "'model.network' .S or M., scale and channels must be the same"),
        ("mend@best", "there is no model 'mend'"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch, start: str, message: str) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    with pytest.raises((JobError, ModelError), match=message):
        train_model(job(tmp_path, train=f"start = '{start}'"))


def test_a_test_image_in_the_folder_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))

    def known() -> dict[str, str]:
        from pipelines.images.convert import pixel_digest

        pixels = np.asarray(Image.open(sorted(GOOD.iterdir())[3]).convert("L"))[..., None]
        return {pixel_digest(pixels)[:16]: "CBSD68"}

    monkeypatch.setattr("pipelines.data.known_images.known_benchmarks", known)
    with pytest.raises(DataError, match="training images are test images: 1 of CBSD68"):
        train_model(job(tmp_path))


def test_half_of_training_is_of_files_and_error_bars_are_of_files_alone(tmp_path: Path) -> None:
    damage = RestorerTraining(job(tmp_path, model="level = 50\ndamage = 'gaussian'")).damage
    black = torch.zeros(200, 1, 8, 8)
    trained, files = (each(black, torch.Generator().manual_seed(0)) for each in (damage.apply, damage.apply_as_files))
    clipped = (trained.flatten(1).min(dim=1).values >= 0).float().mean()
    assert 0.35 < clipped < 0.65
    assert files.min() == 0
    torch.testing.assert_close(files * 255, (files * 255).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", ['train = "1d"\nscore = "1d"\nfolder = "a"\nout = "b"'])
def test_a_schedule_of_another_verb_is_refused(tmp_path: Path, schedule: str) -> None:
    with pytest.raises(JobError, match=r"'schedule.score' has no meaning for denoise: its models restore images"):
        job(tmp_path, schedule=schedule)
