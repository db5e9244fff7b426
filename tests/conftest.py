"""Shared fixtures: a home of its own for every test, and one small trained model for the whole session."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines.demo_images import MAGNETIC_TILE

SMALL_JOB = """
name = "tiles"
task = "reconstruct"
[data]
train = "good"
[model]
target = "pixels"
size = [48, 40]
stages = 2
width = 4
latent_channels = 4
samples = 2
[train]
steps = 40
batch = 8
"""


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty KINTSUGI_HOME for one test, which knows of no server."""
    for name in [name for name in os.environ if name.startswith(("KINTSUGI_", "MLFLOW_TRACKING", "PREFECT_API"))]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("KINTSUGI_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """A job trained on real images from start to registered model; made once, whatever the number of workers."""
    shared = _session_folder(tmp_path_factory) / "kintsugi-trained"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").is_file():
            shared.mkdir(exist_ok=True)
            shutil.copytree(MAGNETIC_TILE / "train" / "good", shared / "good")
            (shared / "tiles.toml").write_text(SMALL_JOB)
            _train(shared)
            (shared / "done").touch()
    return TrainedHome(shared)


def _session_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share: with pytest-xdist each has a base of its own inside it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _train(shared: Path) -> None:
    from pipelines.train import train_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(shared / "home"))
        result = train_model(shared / "tiles.toml")
    bundle = next((shared / "home" / "models").glob("*/model.onnx")).parent
    shutil.copytree(bundle, shared / "bundle")
    (shared / "figures.json").write_text(json.dumps({"promoted": result.promoted, **result.figures}))


class TrainedHome:
    """Where the session's model is. Read only: tests copy what they change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.job = folder / "tiles.toml"
        self.bundle = folder / "bundle"
        self.model = self.bundle / "model.onnx"
        self.images = folder / "good"
        self.figures = json.loads((folder / "figures.json").read_text())
