"""The built wheel in empty environments, away from the checkout: a worker, everything, and Ray.

uv installs the versions of requirements.lock; which index it asks is for its own configuration to say.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.base.software import DISTRIBUTION, software_version
from pipelines.demo_images import MAGNETIC_TILE, PHOTOGRAPHS

ROOT = Path(__file__).parents[2]
TILES = 4  # of each kind to score

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, and a folder to work in."""

    bin: Path
    folder: Path

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, which knows nothing of this checkout."""
        kept = {"HOME", "LANG", "OMP_NUM_THREADS", "TMPDIR"}
        environment = {name: value for name, value in os.environ.items() if name in kept}
        environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", "KINTSUGI_HOME": str(self.folder / "home")}
        program = [self.bin / words[0], *words[1:]]
        return subprocess.run(program, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def kintsugi(self, *words: str | Path) -> str:
        """Run a command that has to end well; return what it printed."""
        done = self.run("kintsugi", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def has(self, package: str) -> bool:
        """Return whether a package can be found."""
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
        return self.run("python", "-c", code).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked source distribution: whatever that lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", folder, "--target"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(source, folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, "wheel"], cwd=unpacked, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def install(wheel: Path, tmp_path: Path):
    """Return a function that makes an empty environment and installs the wheel with some extras into it."""

    def make(extras: str = "") -> Installed:
        venv = tmp_path / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        uv = Path(sys.executable).with_name("uv")
        pins = ["--constraint", ROOT / "requirements.lock"]
        command = [uv, "pip", "install", "--python", venv / "bin" / "python", *pins]
        done = subprocess.run(
            [*command, f"{DISTRIBUTION}{extras} @ {wheel.as_uri()}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        for name in ("good", "crack"):
            files = sorted((MAGNETIC_TILE / "test" / name).glob("*.jpg"))[:TILES]
            (tmp_path / "images" / name).mkdir(parents=True)
            for file in files:
                shutil.copy(file, tmp_path / "images" / name)
        return Installed(venv / "bin", tmp_path)

    return make


def scored(out: Path) -> dict[str, int]:
    counts: dict[str, int] = json.loads((out / "run.json").read_text())["counts"]
    return {name: counts[name] for name in ("ok", "failed")}


def test_a_worker_scores_and_restores_without_torch(install, trained) -> None:
    worker = install()
    assert worker.kintsugi("--version").startswith(f"kintsugi {software_version()} ")
    assert f"{DISTRIBUTION} {software_version()}" in worker.run("kintsugi", "doctor").stdout
    assert not any(map(worker.has, ("torch", "mlflow", "prefect", "pytest", "tests")))
    worker.kintsugi("score", "images", "--model", trained.model, "--out", "report")
    assert scored(worker.folder / "report") == {"ok": 2 * TILES, "failed": 0}
    assert "Content-Security-Policy" in (worker.folder / "report" / "report.html").read_text()
    worker.kintsugi("restore", PHOTOGRAPHS / "noisy", "--model", "builtin:denoise", "--out", "restored")
    assert scored(worker.folder / "restored")["failed"] == 0
    refused = worker.run("kintsugi", "serve", "job.toml")
    assert refused.returncode == 2
    assert f"pip install '{DISTRIBUTION}[" in refused.stderr


def test_the_full_installation_trains_registers_and_scores(install) -> None:
    full = install("[all]")
    assert all(map(full.has, ("torch", "mlflow", "prefect", "starlette", "pillow_heif")))
    doctor = full.run("kintsugi", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    job = f'name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "{MAGNETIC_TILE / "train" / "good"}"\n'
    (full.folder / "tiles.toml").write_text(job)
    full.kintsugi("train", "tiles.toml", "--set", "model.size=[64, 64]")
    full.kintsugi("score", "images", "--model", "tiles@champion", "--out", "report")
    assert scored(full.folder / "report") == {"ok": 2 * TILES, "failed": 0}


def test_ray_works_beside_a_worker(install, trained) -> None:
    worker = install("[ray]")
    assert worker.has("ray")
    assert not worker.has("torch")
    worker.kintsugi("score", "images", "--model", trained.model, "--out", "report", "--engine", "ray")
    assert scored(worker.folder / "report") == {"ok": 2 * TILES, "failed": 0}
