"""A tracked run against a real MLflow store in SQLite: everything arrives, and an absent server stops nothing."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException

from pipelines.errors import RegistryError
from pipelines.registry import tracking
from pipelines.registry.connection import Connection
from pipelines.registry.tracking import TrackedRun


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema, made once: that takes seconds."""
    path = tmp_path_factory.getbasetemp() / "template" / "mlflow.db"
    if not path.exists():
        Connection(f"sqlite:///{path}").client.search_experiments()
    return path


@pytest.fixture
def home(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("KINTSUGI_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points each request to MLflow holds."""
    sizes: list[int] = []
    log_batch = MlflowClient.log_batch

    def counting(client: MlflowClient, run_id: str, metrics: tuple[Metric, ...] = (), **others: object) -> None:
        if metrics:
            sizes.append(len(metrics))
        log_batch(client, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    return sizes


def test_everything_that_was_recorded_is_there(client: MlflowClient, home: Path, tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "a.txt").write_text("a", encoding="utf-8")
    with TrackedRun("tiles", run_name="nightly", tags={"device": "cpu"}) as run:
        run.params({"name": "tiles", "train": {"steps": 100, "patience": None}, "size": [64, 64], "fast": True})
        run.params({f"p{number}": number for number in range(150)})  # more than one request takes
        run.params({"long": "x" * 7000})
        for step in range(3):
            run.metrics({"elbo": -100.0 + step, "rate": step / 2}, step)
        run.metrics({"nan": math.nan, "infinite": math.inf})
        run.image("samples/step 3", b"\x89PNG")
        run.text("job.toml", "name = 'tiles' # ü")
        run.artifact(tmp_path / "folder" / "inner" / "a.txt", "files")
        run.artifact(tmp_path / "folder")
        run.tags({"note": "y" * 9000})
    found = client.get_run(run.run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "nightly")
    assert client.get_experiment(found.info.experiment_id).name == "tiles"
    params = found.data.params
    assert params["train.steps"] == "100"
    assert params["train.patience"] == "None"
    assert (params["size"], params["fast"], params["p149"]) == ("[64, 64]", "true", "149")
    assert params["long"] == "x" * 5999 + "…"
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "elbo")] == [
        (0, -100.0),
        (1, -99.0),
        (2, -98.0),
    ]
    assert math.isnan(found.data.metrics["nan"])
    assert found.data.metrics["infinite"] > 1e300
    assert found.data.tags["device"] == "cpu"
    assert found.data.tags["note"] == "y" * 7999 + "…"
    root = home / "artifacts" / "tiles" / run.run_id / "artifacts"
    assert (root / "images" / "samples" / "step 3.png").read_bytes() == b"\x89PNG"
    assert (root / "job.toml").read_text(encoding="utf-8") == "name = 'tiles' # ü"
    assert (root / "files" / "a.txt").is_file()
    assert (root / "folder" / "inner" / "a.txt").is_file()
    assert list(Path.cwd().iterdir()) == []  # no ./mlruns
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no images"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(3), "KILLED")],
)
def test_a_run_that_ends_badly_says_so_and_keeps_its_figures(
    client: MlflowClient, error: BaseException, status: str
) -> None:
    run = TrackedRun("tiles")
    with pytest.raises(type(error)):
        _train(run, error)
    found = client.get_run(run.run_id)
    assert found.info.status == status
    assert found.data.metrics == {"elbo": 1.0}
    assert found.data.tags["error"] == f"{type(error).__name__}: {error}"


def test_metrics_are_sent_by_the_hundred_and_when_they_are_old(
    client: MlflowClient, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrackedRun("tiles") as run:
        for step in range(600):
            run.metrics({"elbo": step, "rate": step}, step)
        assert sent == [500, 500]
        monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
        run.flush()
        assert sent == [500, 500, 200]
        run.metrics({"elbo": 1.0}, 600)
        assert sent == [500, 500, 200, 1]
    assert sum(sent) == len(client.get_metric_history(run.run_id, "elbo")) * 2 - 1


def test_training_goes_on_while_the_server_is_away(
    client: MlflowClient, sent: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 3600.0)
    monkeypatch.setattr(tracking, "FLUSH_POINTS", 2)
    with caplog.at_level(logging.WARNING, logger="pipelines.registry.tracking"), TrackedRun("tiles") as run:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_batch", _raise(MlflowException("API request failed with exception")))
            for step in range(10):
                run.metrics({"elbo": step}, step)
        assert [record.message.partition(" (")[2] for record in caplog.records] == [
            "API request failed with exception); training goes on, 1 points wait for the next try in 3600 s"
        ]
        assert sent == []
    assert sent == [10]
    assert [point.value for point in client.get_metric_history(run.run_id, "elbo")] == list(range(10))


def test_what_waits_for_the_server_is_bounded(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "MAX_WAITING", 5)
    with TrackedRun("tiles") as run, monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", _raise(ConnectionError("refused")))
        for step in range(10):
            run.metrics({"elbo": step}, step)
        patch.undo()
    assert [point.value for point in client.get_metric_history(run.run_id, "elbo")] == [5, 6, 7, 8, 9]


def test_what_cannot_be_sent_in_the_end_is_an_error_but_never_hides_another(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = _raise(MlflowException("API request failed with exception"))
    first, second = TrackedRun("tiles"), TrackedRun("tiles")
    with monkeypatch.context() as patch:
        with pytest.raises(RegistryError, match=r"recording metrics failed at sqlite:.*API request failed"):
            _train(first, then=lambda: patch.setattr(MlflowClient, "log_batch", away))
        patch.undo()
        with pytest.raises(ZeroDivisionError):
            _train(second, ZeroDivisionError(), then=lambda: patch.setattr(MlflowClient, "set_terminated", away))
    assert client.get_run(first.run_id).info.status == "FAILED"
    assert client.get_run(second.run_id).data.metrics == {"elbo": 1.0}


@pytest.mark.usefixtures("home")
def test_what_mlflow_refuses_is_a_registry_error() -> None:
    with TrackedRun("tiles") as run:
        run.params({"steps": 100})
        run.params({"steps": 100})
        with pytest.raises(RegistryError, match=r"recording parameters failed at sqlite:.*steps"):
            run.params({"steps": 200})
        run.metrics({"50%": 1.0})
        with pytest.raises(RegistryError, match=r"recording metrics failed.*50%"):
            run.flush()
        run._waiting.clear()
        with pytest.raises(RegistryError, match="storing the text"):
            run.text("../../outside.txt", "no")
        with pytest.raises(RegistryError, match=r"storing .*missing\.txt failed"):
            run.artifact(Path("missing.txt"))


def test_a_run_that_was_killed_is_gone_on_with(client: MlflowClient) -> None:
    first = TrackedRun("tiles")
    with pytest.raises(KeyboardInterrupt):
        _train(first, KeyboardInterrupt())
    with TrackedRun("tiles", run_id=first.run_id, tags={"resumed": "yes"}) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        second.metrics({"elbo": 2.0}, 2)
    found: Run = client.get_run(first.run_id)
    assert (second.run_id, found.info.status, found.data.tags["resumed"]) == (first.run_id, "FINISHED", "yes")
    assert [point.step for point in client.get_metric_history(first.run_id, "elbo")] == [0, 2]
    with pytest.raises(RegistryError, match="starting a run of 'tiles' failed"), TrackedRun("tiles", run_id="0" * 32):
        pass


def test_runs_of_one_name_share_an_experiment_and_a_deleted_one_is_explained(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrackedRun("tiles: a/b") as first, TrackedRun("tiles: a/b") as second:
        assert mlflow.active_run() is None
    experiments = {client.get_run(run.run_id).info.experiment_id for run in (first, second)}
    assert len(experiments) == 1
    find = MlflowClient.get_experiment_by_name
    answers = iter([None])  # another process creates it between our two requests
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_experiment_by_name", lambda self, name: next(answers, find(self, name)))
        with TrackedRun("tiles: a/b") as third:
            pass
    assert client.get_run(third.run_id).info.experiment_id in experiments
    client.delete_experiment(experiments.pop())
    with pytest.raises(RegistryError, match=r"was deleted: bring it back with `mlflow experiments restore"):
        TrackedRun("tiles: a/b").__enter__()


def test_a_run_has_no_identifier_before_it_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    with pytest.raises(RuntimeError, match="before it is entered"):
        _ = TrackedRun("tiles").run_id
    assert not (tmp_path / "home").exists()


def _train(run: TrackedRun, error: BaseException | None = None, then: Callable[[], None] = lambda: None) -> None:
    with run:
        run.metrics({"elbo": 1.0})
        then()
        if error is not None:
            raise error


def _raise(error: Exception) -> Callable[..., None]:
    def raising(*_: object, **__: object) -> None:
        raise error

    return raising


def test_a_run_whose_process_was_killed_does_not_go_on_for_ever(client: MlflowClient, tmp_path: Path) -> None:
    kept = tmp_path / "work" / "mlflow-run"
    first = TrackedRun("tiles", kept=kept).__enter__()  # and then the power failed
    assert client.get_run(first.run_id).info.status == "RUNNING"
    with TrackedRun("tiles", kept=kept) as second:
        assert kept.read_text() == second.run_id != first.run_id
        assert client.get_run(first.run_id).info.status == "KILLED"
    assert client.get_run(second.run_id).info.status == "FINISHED"
    assert not kept.exists()

    kept.write_text("0" * 32)  # of another server
    with TrackedRun("tiles", kept=kept) as third:
        assert third.run_id
    assert not kept.exists()
