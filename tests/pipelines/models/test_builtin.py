"""The models that ship: each is what it says, and does some good on images that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines import restore_folder
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.jobfile.job import load_job
from pipelines.models.reference import BUILTIN
from pipelines.models.session import RestoringSession, open_restoring_session
from pipelines.registry.resolve import find_model
from pipelines.restoration.quality import compare

NAMES = sorted(path.name for path in BUILTIN.iterdir())
MOST_BYTES = 40e6


def tile() -> NDArray[np.uint8]:
    return np.asarray(Image.open(sorted((MAGNETIC_TILE / "train" / "good").iterdir())[0]).convert("L"))


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in BUILTIN.rglob("*")) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_what_it_says(name: str, own_home: Path) -> None:
    file = find_model(f"builtin:{name}")
    metadata = open_restoring_session(file, device="cpu", threads=1).metadata
    job = load_job(file.folder / "job.toml")
    assert metadata.name == job.name == name
    assert metadata.task == job.task
    assert file.card is not None
    assert metadata.licence is not None
    assert metadata.licence in file.card
    assert "## Benchmark" in file.card


def test_noise_is_taken_out(own_home: Path, tmp_path: Path) -> None:
    clean = tile()
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    (tmp_path / "in").mkdir()
    Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(tmp_path / "in" / "tile.png")
    restore_folder(tmp_path / "in", "builtin:denoise", tmp_path / "out")
    restored = np.asarray(Image.open(tmp_path / "out" / "restored" / "tile.png"))
    before, after = (
        compare(each[..., None], clean[..., None])["psnr"]
        for each in (np.asarray(Image.open(tmp_path / "in" / "tile.png")), restored)
    )
    assert before is not None
    assert after is not None
    assert after > before + 8


def test_restoring_needs_neither_torch_nor_mlflow_nor_prefect(
    run_without_training: Callable[..., None], tmp_path: Path
) -> None:
    """Every kind of model, with samples where it knows several, and compared with what should come out."""
    (tmp_path / "in").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(tile()[:64, :64]).save(tmp_path / "in" / "a.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "labels" / "a.png")
    commands: list[list[object]] = []
    for name in NAMES:
        twins = tmp_path / ("labels" if name == "segment_nuclei" else "in")
        words = ["restore", tmp_path / "in", "--model", f"builtin:{name}", "--out", tmp_path / name]
        samples = ["--samples", 2] if name in {"colorize", "segment_nuclei"} else []
        commands.append([*words, *samples, "--reference", twins])
    run_without_training(*commands)
    for name in NAMES:
        assert (tmp_path / name / "restored" / "a.png").is_file()
        assert (tmp_path / name / "report.html").is_file()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("super_resolution")])
def test_enlarged_images_are_nearer_than_bicubic_ones(name: str) -> None:
    session = RestoringSession(find_model(f"builtin:{name}"), device="cpu", threads=1)
    scale, clean = session.metadata.scale, tile()
    height, width = (length // (8 * scale) * 8 * scale for length in clean.shape)
    clean = clean[:height, :width]
    whole = Image.fromarray(clean)
    small = whole.resize((width // scale, height // scale), Image.Resampling.BICUBIC)
    enlarged = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    given = np.repeat((np.asarray(small, np.float32) / 255)[None, ..., None], 3, axis=3)
    made = (session.run(given)[0][0].mean(axis=2).clip(0, 1) * 255).round().astype(np.uint8)
    ours, bicubic = (compare(each[..., None], clean[..., None])["psnr"] for each in (made, enlarged))
    assert ours is not None
    assert bicubic is not None
    assert ours > bicubic
