"""The first use of a registry, and registries that cannot be used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException

from pipelines.errors import RegistryError
from pipelines.registry import connection
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun

FIRST_USE = """
import sys
import time
from pathlib import Path
import mlflow
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
with TrackedRun("tiles") as run:
    run.metrics({"loss": 1.0})
    print(Registry().register("tiles", folder / name, run_id=run.run_id).version)
"""


def test_two_processes_may_use_a_new_registry_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_bundle: Callable[..., Path]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db.new").write_bytes(b"half a schema, of a process that was killed")
    names = ["one", "two"]
    for number, name in enumerate(names):
        make_bundle(tmp_path / name, weight=float(number))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KINTSUGI"))}
    environment |= {"KINTSUGI_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3]), "CI": ""}
    environment.pop("PYTEST_CURRENT_TEST", None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_USE, str(tmp_path), name],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    deadline = time.monotonic() + 300  # importing MLflow on a busy machine
    while not all((tmp_path / f"{name}.ready").exists() for name in names):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    ends = [process.communicate(timeout=240) for process in processes]
    assert sorted(out for out, _ in ends) == ["1\n", "2\n"]
    assert [err for _, err in ends] == ["", ""]  # nothing of MLflow's on the terminal
    assert sorted(path.name for path in home.iterdir()) == ["artifacts", "mlflow.db", "mlflow.db.lock"]
    monkeypatch.setenv("KINTSUGI_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for version in Registry().versions("tiles"):
        Registry().verify(version)


def test_a_server_that_is_down_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    for uri in (f"http://ada:secret@127.0.0.1:{port}", f"postgresql://ada:secret@127.0.0.1:{port}/mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        shown = uri.replace("secret", r"\*\*\*")
        with pytest.raises(
            RegistryError, match=f"nothing answers at {shown} .*Start the MLflow server, or unset MLFLOW"
        ):
            Registry().models()
        with pytest.raises(RegistryError, match=f"nothing answers at {shown} "), TrackedRun("tiles"):
            pass
    assert time.monotonic() - start < 10


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryError, match="nothing answers at"):
            Registry(uri).get("tiles", "champion")


def test_a_database_that_cannot_be_used_is_told_at_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mlflow.db").write_bytes(b"This is not a database, whatever it is called." * 100)
    with pytest.raises(
        RegistryError, match=r"opening the registry failed at sqlite:///.*file is not a database.*Check"
    ):
        Registry().models()
    (tmp_path / "file").touch()
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(RegistryError, match=r"opening the registry failed.*set KINTSUGI_HOME"), TrackedRun("tiles"):
        pass
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "100%41"))  # MLflow would put its files in "100A"
    with pytest.raises(RegistryError, match=r"'%' and '\?'.*set KINTSUGI_HOME"), TrackedRun("tiles"):
        pass


def test_a_database_that_was_removed_is_not_written_to(registry: Registry, home: Path) -> None:
    registry.models()
    (home / "mlflow.db").unlink()
    with pytest.raises(RegistryError, match="was removed while this process was using it"), TrackedRun("tiles"):
        pass


def test_a_database_of_an_older_mlflow_says_how_to_upgrade(home: Path) -> None:
    with sqlalchemy.create_engine(f"sqlite:///{home}/mlflow.db").begin() as database:
        database.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '451aebb31d03'"))
    with pytest.raises(RegistryError, match=r"out-of-date.*back it up, then run `mlflow db upgrade sqlite:"):
        Registry().models()


def test_what_mlflow_refuses_is_a_registry_error(register: Callable[..., None]) -> None:
    with pytest.raises(RegistryError, match=r"registering 'tiles' failed.*metric\.50%") as caught:
        register(metrics={"50%": 1.0})
    assert isinstance(caught.value.__cause__, MlflowException)


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = (
        "import sys, pipelines.registry, pipelines.registry.tracking; "
        "print('mlflow' in sys.modules, 'onnx' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False False\n"


def test_pickles_are_refused_and_nothing_is_reported_home(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", raising=False)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    registry.models()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
