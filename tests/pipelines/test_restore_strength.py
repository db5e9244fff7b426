"""How strongly a folder is mended, what the files state of it, and what the report says of the noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import restore_folder
from pipelines.errors import FolderError
from pipelines.models.model_file import ModelFile


def pixels(height: int = 33, width: int = 47) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpeg"])
def test_a_result_states_what_made_it_unless_asked_not_to(same: ModelFile, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0131] = "Darkroom 3"
    Image.fromarray(pixels()).save(folder / "photo.jpg", exif=exif)
    found = {}
    for stamp in (True, False):
        out = tmp_path / f"{kind} {stamp}"
        restore_folder(folder, same, out, kind=kind, stamp=stamp, strength=0.5)
        (path,) = (out / "restored").iterdir()
        with Image.open(path) as picture:
            found[stamp] = picture.getexif()[0x0131]
            text = picture.info.get("Software")
        assert (text == f"Kintsugi, model mender (sha256 {same.sha256}), strength 0.5") == (stamp and kind == "png")
    maker = f"Kintsugi, model mender (sha256 {same.sha256}), strength 0.5"
    assert found == {True: f"{maker}; before that: Darkroom 3", False: "Darkroom 3"}


def test_strength_is_refused_where_there_is_nothing_to_mix_with(
    larger: ModelFile, same: ModelFile, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "in" / "a.png")
    with pytest.raises(FolderError, match="leave --strength out"):
        restore_folder(tmp_path / "in", larger, tmp_path / "out", strength=0.5)
    with pytest.raises(FolderError, match="from 0"):
        restore_folder(tmp_path / "in", same, tmp_path / "out", strength=1.5)


@pytest.mark.parametrize("scale", [1, 2])
def test_the_images_themselves_are_compared_with_the_clean_ones(
    same: ModelFile, larger: ModelFile, tmp_path: Path, scale: int
) -> None:
    clean, given = tmp_path / "clean", tmp_path / "given"
    clean.mkdir()
    given.mkdir()
    whole = pixels(160, 240)
    Image.fromarray(whole).save(clean / "a.png")
    Image.fromarray(whole).resize((240 // scale, 160 // scale), Image.Resampling.BICUBIC).save(given / "a.png")
    summary = restore_folder(given, (same, larger)[scale - 1], tmp_path / "out", reference=clean)
    assert summary.psnr == pytest.approx(summary.input_psnr, abs=0.2)  # the models change nothing
    (row,) = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert row["input_ssim"] == pytest.approx(row["ssim"], abs=0.02)
    assert (row["input_noise"] is None) == (scale == 2)


def test_a_folder_that_stays_noisy_is_warned_of(same: ModelFile, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).normal(128, 12, (128, 128, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    restore_folder(folder, same, tmp_path / "out")
    (warning,) = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert warning.startswith("3 of 3 images are nearly as noisy as before")
