"""Images that models make up: from their own prior, the same each time; and what makes none says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import FolderError, ModelError
from pipelines.generate import sample_images, sheet_of
from pipelines.train import train_model

JOB = """
name = "bars"
task = "reconstruct"
data.train = "good"
train = {{steps = 300, batch = 8}}
[model]
target = "pixels"
size = [16, 16]
likelihood = "bernoulli"
latent = "{latent}"
latent_channels = 4
stages = 2
width = 8
levels = {levels}
prior = "{prior}"
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    (tmp_path / "good").mkdir()
    for number in range(40):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[number % 4 : number % 4 + 12, 2:14] = 255 - number % 3
        Image.fromarray(pixels).save(tmp_path / "good" / f"{number}.png")
    return tmp_path / "bars.toml"


@pytest.mark.parametrize(
    ("prior", "levels", "latent"), [("standard", 1, "vector"), ("standard", 2, "grid"), ("mixture", 1, "grid")]
)
def test_samples_look_like_what_was_learned(job: Path, prior: str, levels: int, latent: str) -> None:
    job.write_text(JOB.format(prior=prior, levels=levels, latent=latent))
    train_model(job)
    out = job.parent / "samples"
    assert sample_images("bars@champion", 10, out) == out / "sheet.png"
    images = [np.asarray(Image.open(out / f"{number:04}.png")) for number in range(10)]
    assert all(image.shape == (16, 16) for image in images)
    border = np.mean([[image[:, 0].mean(), image[:, -1].mean()] for image in images])
    middle = np.mean([image[6:10, 4:12].mean() for image in images])
    assert middle > border + 80, "bars lie in the middle"
    assert Image.open(out / "sheet.png").size == (4 * 18 - 2, 3 * 18 - 2)

    sample_images("bars@champion", 2, job.parent / "again")
    assert (job.parent / "again" / "0001.png").read_bytes() == (out / "0001.png").read_bytes()
    sample_images("bars@champion", 2, job.parent / "others", seed=1)
    assert (job.parent / "others" / "0001.png").read_bytes() != (out / "0001.png").read_bytes()


def test_what_makes_no_images_says_so(job: Path, tmp_path: Path) -> None:
    job.write_text(JOB.format(prior="none", levels=1, latent="vector"))
    train_model(job, overrides=["train.steps=5"])
    with pytest.raises(ModelError, match="is an autoencoder: without a prior"):
        sample_images("bars@champion", 2, tmp_path / "x")
    (tmp_path / "file").touch()
    job.write_text(JOB.format(prior="standard", levels=1, latent="vector"))
    train_model(job, overrides=["train.steps=5", 'name="others"'])
    with pytest.raises(FolderError, match="is a file"):
        sample_images("others@champion", 2, tmp_path / "file")


def test_a_sheet_has_white_between_images_and_where_none_is() -> None:
    sheet = sheet_of([np.full((3, 5, 1), value, np.uint8) for value in (10, 20, 30)])
    assert sheet.shape == (8, 12, 1)
    assert sheet[:3, :5].max() == 10
    assert sheet[:3, 7:].max() == 20
    assert sheet[5:, :5].max() == 30
    assert (sheet[3:5] == 255).all()
    assert (sheet[5:, 7:] == 255).all()
