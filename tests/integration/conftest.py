"""One set of servers for all tests of this folder, one model, and a table of what took how long."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.demo_images import MAGNETIC_TILE

from .interfaces import Timings
from .stack import Stack

TIMINGS = pytest.StashKey[Timings]()
IMAGES = 1024  # four shards: there is a time when one is done and the others are not
JOB = f"""
name = "tiles"
task = "reconstruct"
[data]
train = "{MAGNETIC_TILE / "train" / "good"}"
[model]
target = "pixels"
size = [48, 40]
stages = 2
width = 4
latent_channels = 4
samples = 1
[train]
steps = 2000
batch = 8
[promote]
rule = "always"
"""
FEW_STEPS = "train.steps=20"  # as an override, which is how a run of a deployment is told


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TIMINGS] = Timings()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[TIMINGS].rows:
        terminalreporter.section("seconds of each step")
        for name, seconds in rows:
            terminalreporter.write_line(f"{seconds:7.1f}  {name}")


@pytest.fixture(scope="session")
def timings(pytestconfig: pytest.Config) -> Timings:
    return pytestconfig.stash[TIMINGS]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, timings: Timings) -> Iterator[Stack]:
    """All servers, ready."""
    servers = Stack(tmp_path_factory.mktemp("servers"))
    try:
        with timings.step("servers: PostgreSQL, object store, MLflow, Prefect, deployments, worker"):
            servers.start()
        yield servers
    finally:
        servers.close()


@dataclass(frozen=True)
class Training:
    """A run of the deployment `train`."""

    job: Path
    run: str

    @property
    def parameters(self) -> dict[str, object]:
        return {"job": str(self.job), "overrides": [FEW_STEPS], "if_needed": False}  # the images stay the same


@pytest.fixture(scope="session")
def champion(stack: Stack, timings: Timings) -> Training:
    """The first version, trained by the worker."""
    job = stack.data / "jobs" / "tiles.toml"  # where prefect.yaml has it
    job.parent.mkdir()
    job.write_text(JOB)
    run = stack.prefect_api.start("train", overrides=[FEW_STEPS])
    with timings.step("1. a model is trained by the worker, through the work pool"):
        stack.prefect_api.completed(run, 500)
    return Training(job, run)


@pytest.fixture(scope="session")
def inbox(stack: Stack) -> Path:
    """Real images, often enough for several shards."""
    folder = stack.data / "inbox"
    folder.mkdir()
    sources = sorted(MAGNETIC_TILE.glob("t*/*/*.jpg"))
    for number, source in zip(range(IMAGES), itertools.cycle(sources)):
        shutil.copy(source, folder / f"{number:04d}.jpg")
    return folder


@pytest.fixture(scope="session")
def expected(stack: Stack, champion: Training, inbox: Path, timings: Timings) -> dict[str, bytes]:
    """What the first version says of the inbox, by the command on a user's machine."""
    with timings.step("2. the same folder by `kintsugi score`, with the model from the registry"):
        told = stack.kintsugi("score", inbox, "--model", "tiles/1", "--out", stack.data / "by-hand")
    assert told.code == 0, told.err
    return results(stack.data / "by-hand")


def results(out: Path) -> dict[str, bytes]:
    """What must not depend on where, how or how often a folder was scored: rows and heat maps."""
    files = [out / "results.parquet", out / "results.csv", *sorted((out / "maps").iterdir())]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
