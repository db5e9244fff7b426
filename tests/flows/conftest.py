"""One embedded server for all tests of this folder: it takes seconds to start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEADLINE = 60.0  # seconds that a test waits for anything, on a machine that others use too


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A KINTSUGI_HOME whose Prefect server is running, and is the one of this process."""
    from flows.server import orchestrator

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("KINTSUGI_HOME", str(folder))
        patch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
        with orchestrator():
            from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # its thread costs each flow a second
                yield folder


@pytest.fixture
def client(home: Path) -> Iterator[object]:
    """Prefect's client."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., object]:
    """Poll until something is there."""

    def wait_for(look: Callable[[], object], what: str, seconds: float = DEADLINE) -> object:
        ends = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < ends, f"{what}: not within {seconds:.0f} s"
            time.sleep(0.05)
        return found

    return wait_for


@pytest.fixture
def children_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process of its own: no server but the embedded one of its own home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KINTSUGI_"))}
    return environment | {"KINTSUGI_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def kintsugi(tmp_path: Path):
    """Run the real command in a process and a home of its own."""

    def kintsugi(
        *arguments: object, home: Path | None = None, largest_file: int = -1, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        environment = clean | {"KINTSUGI_HOME": str(home or tmp_path / "home"), "COLUMNS": "120"} | variables
        command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
        )  # fmt: skip

    return kintsugi
