"""Every test of the pipelines has a home of its own; those that score share a folder of images."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from pipelines.demo_images import MAGNETIC_TILE
from pipelines.models.model_file import ModelFile, RestorationMetadata, sha256_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHOUT_TRAINING = """
import sys
TRAINING = "torch torchvision lightning mlflow prefect vaecore onnx sklearn".split()
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in TRAINING:
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from flows.cli import main
for words in {commands}:
    sys.argv = ["kintsugi", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(autouse=True)
def _isolated(own_home: Path) -> None:
    """Nothing is read from, or left in, the user's own KINTSUGI_HOME."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve good images and four cracks."""
    folder = tmp_path / "images"
    for name in ("good", "crack"):
        shutil.copytree(MAGNETIC_TILE / "test" / name, folder / name)
    return folder


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Sixteen good images to train on."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    for path in sorted((MAGNETIC_TILE / "train" / "good").iterdir())[:16]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def rows_of() -> Callable[[Path], list[dict]]:
    """The rows of an output folder."""
    return lambda out: pq.read_table(out / "results.parquet").to_pylist()


@pytest.fixture
def stable_bytes() -> Callable[[Path], dict[str, bytes]]:
    """Everything that must not depend on how often a run was stopped; times and the lock aside."""

    def stable_bytes(out: Path) -> dict[str, bytes]:
        kept = [p for p in out.rglob("*") if p.is_file() and p.name not in {"run.json", "report.html", "lock"}]
        return {str(p.relative_to(out)): p.read_bytes() for p in kept if "shards-" not in str(p)}

    return stable_bytes


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Paths that the system refuses to answer for, and the error numbers: root is kept out by no mode."""
    broken: dict[str, int] = {}

    def refusing(ask):
        def asked(path, *arguments, **keywords):
            code = next((code for below, code in broken.items() if f"{path}/".startswith(f"{below}/")), None)
            if code is not None:
                raise OSError(code, os.strerror(code), str(path))
            return ask(path, *arguments, **keywords)

        return asked

    for name in ("stat", "lstat", "scandir", "listdir", "open"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    monkeypatch.setattr(io, "open", refusing(io.open))
    return broken


@pytest.fixture
def run_without_training() -> Callable[..., None]:
    """Run commands, each a list of words, in a process in which nothing of the training side can be imported."""

    def run_without_training(*commands: list[object]) -> None:
        code = WITHOUT_TRAINING.format(commands=[[str(word) for word in words] for words in commands])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run_without_training


@pytest.fixture(scope="session")
def export_mender() -> Callable[..., ModelFile]:
    """Export a small network: untrained it changes nothing; otherwise its weights are far from that."""
    import torch

    from vaecore.graphs.export import export_restoration
    from vaecore.graphs.restoration import OUTPUTS, RestorationGraph
    from vaecore.likelihoods import GaussianLikelihood
    from vaecore.networks import Restorer

    def export_mender(folder: Path, *, channels: int = 3, scale: int = 1, identity: bool = False) -> ModelFile:
        torch.manual_seed(0)
        network = Restorer(channels=channels, outputs=channels, widths=(8, 12), blocks=(1, 1), upscale=scale)
        if not identity:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
        metadata = RestorationMetadata(
            name="mender", task="denoise", summary="Mends.", channels=channels, bit_depth=8, value_range=(0, 1),
            size_multiple=network.multiple, halo=network.halo, likelihood="gaussian", outputs=OUTPUTS, licence=None,
            git_commit=None, data_digest="", images={"train": 9}, kintsugi="0", scale=scale, damage="gaussian",
            level="sigma", strengths=(25, 25), levels=(25,), luma=False, intervals={"0.5": 0.6, "0.95": 2.1},
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        path = folder / "model.onnx"
        graph = RestorationGraph(network, GaussianLikelihood()).eval()
        export_restoration(graph, path, metadata.model_dump(mode="json"))
        return ModelFile(path=path, sha256=sha256_of(path), ref=str(path))

    return export_mender


@pytest.fixture(scope="session")
def same(export_mender, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_mender(tmp_path_factory.mktemp("same"), identity=True)


@pytest.fixture(scope="session")
def other(export_mender, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_mender(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="session")
def larger(export_mender, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_mender(tmp_path_factory.mktemp("larger"), scale=2, identity=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of `test_browser*.py`."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs a browser and its driver: apt-get install chromium, pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        chromium.close()
