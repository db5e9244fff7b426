"""The script for a GPU machine: it needs no registry, goes on with its own work only, and measures what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(("mlflow", "prefect", "typer"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def gpu(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The script where neither MLflow nor Prefect nor the command line is installed."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT / "scripts" / "gpu.py"), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"KINTSUGI_HOME": str(folder / "home"), "KINTSUGI_WORKERS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_it_trains_into_a_bundle_and_measures_it(tmp_path: Path, photographs: Path) -> None:
    job = tmp_path / "m.toml"
    job.write_text(
        'name = "m"\ntask = "denoise"\ndata.train = "elsewhere"\ntrain = {steps = 4, batch = 2, crop = 32}\n'
    )
    arguments = ("--images", photographs, "--work", tmp_path / "work", "--out", tmp_path / "out")
    done = gpu(tmp_path, "train", job, "--set", 'model.network="M"', *arguments)
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "out" / "m"
    assert {"model.onnx", "card.md", "split.json"} <= {each.name for each in bundle.iterdir()}
    assert json.loads((bundle / "figures.json").read_text())["steps"] == 4
    before = (bundle / "model.onnx").read_bytes()
    done = gpu(tmp_path, "train", job, "--set", 'model.network="M"', *arguments)
    assert (done.returncode, "is there already" in done.stderr) == (0, True)

    bundle.rename(tmp_path / "first")
    done = gpu(tmp_path, "train", job, "--set", 'model.network="M"', *arguments)  # its checkpoints are still there
    assert "had ended at step 4 of 4" in done.stderr
    bundle.rename(tmp_path / "second")
    done = gpu(tmp_path, "train", job, "--set", 'model.network="M"', "--set", "train.seed=1", *arguments)
    assert "had ended" not in done.stderr, "another job's checkpoints"
    assert (bundle / "model.onnx").read_bytes() != before

    done = gpu(tmp_path, "measure", bundle, "--side", "32", "--batch", "2", "--json", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "x.json").read_text())[str(bundle)]
    assert found["megapixels_per_s"] > 0
    assert found["difference"] == 0  # there is no GPU to differ


def test_scores_and_verdicts_are_compared_with_the_cpu_s(tmp_path: Path, trained) -> None:
    done = gpu(tmp_path, "measure", trained.bundle)
    assert (done.returncode, "add --images FOLDER" in done.stderr) == (1, True)
    done = gpu(tmp_path, "measure", trained.bundle, "--images", trained.images, "--json", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "x.json").read_text())[str(trained.bundle)]
    assert found.pop("images_per_s") > 0
    assert found == {
        "provider": "CPUExecutionProvider", "images": 64, "score_difference": 0.0, "tolerance": 1e-4,
        "beyond_tolerance": 0, "not_repeated": 0, "verdicts_that_differ": 0,
    }  # fmt: skip


def test_a_job_of_another_kind_is_told(tmp_path: Path) -> None:
    job = tmp_path / "tiles.toml"
    job.write_text('name = "tiles"\ntask = "reconstruct"\ndata.train = "x"')
    done = gpu(tmp_path, "train", job, "--work", tmp_path / "work", "--out", tmp_path / "out")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("the task reconstruct trains an anomaly model, not an image-to-image model")


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    done = gpu(tmp_path, "measure", "nothing@champion", "--side", "16")
    assert done.returncode != 0
    assert "nothing@champion is no model file" in done.stderr
