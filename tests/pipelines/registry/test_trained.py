"""Once a version is registered nothing fails its training: no outage and no kill makes another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

import pipelines.registry.store
import pipelines.training.registration
from pipelines.errors import RegistryError
from pipelines.image_to_image import train
from pipelines.jobfile.job import Job, load_job
from pipelines.registry.records import Version
from pipelines.registry.store import Registry
from pipelines.registry.tracking import RUN_FILE, TrackedRun
from pipelines.training.promotion import Decision
from pipelines.training.registration import MadeBundle, train_once


class Killed(BaseException):
    """As SIGKILL: nothing that would run on the way out reaches the registry either."""


class Server:
    """What stands between us and MLflow: once a version is registered it counts requests, and may refuse some."""

    def __init__(self) -> None:
        self.calls: list[str] | None = None
        self.refused = range(0)
        self.error: BaseException = ConnectionRefusedError("the server restarts")

    def begin(self, refused: range, error: BaseException) -> None:
        self.calls, self.refused, self.error = None, refused, error

    def end(self) -> None:
        self.refused = range(0)

    def guard(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def asked(client: MlflowClient, *arguments: object, **keywords: object) -> object:
            if self.calls is not None:
                self.calls.append(name)
                if len(self.calls) - 1 in self.refused:
                    raise self.error
            answer = method(client, *arguments, **keywords)
            if name == "create_model_version":
                self.calls = []
            return answer

        return asked


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    for name, method in list(vars(MlflowClient).items()):
        if callable(method) and not name.startswith("_"):
            monkeypatch.setattr(MlflowClient, name, server.guard(name, method))
    monkeypatch.setattr(pipelines.training.registration, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(pipelines.registry.store, "PAUSES", (0.0, 0.0, 0.0))
    return server


class Training:
    """A training whose network is a constant; each has a model of its own."""

    def __init__(self, home: Path, job: Job, make_bundle: Callable[..., Path]) -> None:
        self.home, self.job, self.make_bundle = home, job, make_bundle
        self.times = 0

    @property
    def work(self) -> Path:
        return self.home / "runs" / self.job.name / "key"

    def run(self) -> pipelines.training.registration.TrainedModel:
        def make(work: Path, folder: Path, run: pipelines.training.registration.TrackedRun) -> MadeBundle:
            self.times += 1
            work.mkdir(parents=True, exist_ok=True)
            (work / "last.ckpt").write_bytes(b"weights")
            self.make_bundle(folder)
            run.metrics({"challenger_psnr": 30.0}, 5)
            return MadeBundle({"challenger_psnr": 30.0}, Decision(True, "the first version", {"challenger_psnr": 30.0}))

        return train_once(self.job, "key", "ab" * 32, make)


@pytest.fixture
def trainings(home: Path, tmp_path: Path, make_bundle: Callable[..., Path]) -> Iterator[Training]:
    def trainings() -> Iterator[Training]:
        for number in range(100):
            path = tmp_path / f"tiles{number}.toml"
            path.write_text(f'name = "tiles{number}"\ntask = "reconstruct"\ndata.train = "good"\n')
            yield Training(home, load_job(path), make_bundle)

    return trainings()


@pytest.fixture
def steps(server: Server, trainings: Iterator[Training]) -> int:
    """How many requests there are once a version is registered."""
    training = next(trainings)
    assert training.run().promoted
    assert not training.work.exists()
    assert server.calls is not None
    steps = len(server.calls)
    assert {"set_registered_model_alias", "set_terminated"} <= set(server.calls)
    return steps


def expect_one_champion(registry: Registry, training: Training) -> None:
    (version,) = registry.versions(training.job.name)
    assert version.aliases == ("champion",)
    assert training.times == 1
    kept = [each.name for each in training.work.iterdir()] if training.work.exists() else []
    run = MlflowClient(registry.address).get_run(version.run_id)
    if kept:  # MLflow has not heard of its end, and whoever tells it later knows which it was
        assert kept == [RUN_FILE]
        assert (training.work / RUN_FILE).read_text() == f"{version.run_id} FINISHED"
    else:
        assert run.info.status == "FINISHED"
    assert registry.trail(training.job.name)[-1].figures == {"challenger_psnr": 30.0}


def test_a_registry_that_restarts_fails_no_training(
    registry: Registry, server: Server, trainings: Iterator[Training], steps: int
) -> None:
    for step in range(0, steps, 2):
        training = next(trainings)
        server.begin(range(step, step + 2), ConnectionRefusedError("the server restarts"))
        trained = training.run()
        server.end()
        assert trained.promoted, step
        assert trained.figures == {"challenger_psnr": 30.0}
        expect_one_champion(registry, training)


def test_a_registry_that_stays_away_fails_no_training_and_the_same_command_finishes_it(
    registry: Registry, server: Server, trainings: Iterator[Training], steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(steps):
        training = next(trainings)
        server.begin(range(step, 10_000), ConnectionRefusedError("the server is away"))
        caplog.clear()
        trained = training.run()
        assert not (training.work / "last.ckpt").exists()
        server.end()
        if not trained.promoted:
            assert f"models promote {training.job.name} 1" in caplog.text
            assert "refused to move" in trained.reason
            assert training.run().promoted
        expect_one_champion(registry, training)


def test_one_that_is_killed_is_finished_by_the_same_command(
    registry: Registry, server: Server, trainings: Iterator[Training], steps: int
) -> None:
    for step in range(steps):
        training = next(trainings)
        server.begin(range(step, 10_000), Killed())
        with pytest.raises(Killed):
            training.run()
        server.end()
        assert training.run().promoted
        expect_one_champion(registry, training)


@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_is_lost_makes_no_second_version(
    registry: Registry, server: Server, trainings: Iterator[Training], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    create = MlflowClient.create_model_version

    def losing(*arguments: object, **keywords: object) -> object:
        made = [create(*arguments, **keywords) for _ in range(times)]  # MLflow's client asks again by itself
        if times == 1:
            raise ConnectionResetError("the server went away before it answered")
        return made[0]

    monkeypatch.setattr(MlflowClient, "create_model_version", losing)
    training = next(trainings)
    assert training.run().promoted
    expect_one_champion(registry, training)


def test_a_version_that_was_not_made_is_an_error_and_its_checkpoints_stay(
    registry: Registry, server: Server, trainings: Iterator[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("nobody there")

    training = next(trainings)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", refusing)
        with pytest.raises(RegistryError, match="nobody there"):
            training.run()
    assert (training.work / "last.ckpt").is_file()
    assert training.run().promoted
    assert len(registry.versions(training.job.name)) == 1


def killed_after_registration(training: Training, server: Server, registry: Registry) -> Version:
    """Run a training that is killed at its second request after registration, and return its version."""
    server.begin(range(2, 10_000), Killed())
    with pytest.raises(Killed):
        training.run()
    server.end()
    (version,) = registry.versions(training.job.name)
    return version


def test_another_champion_meanwhile_makes_a_decision_void(
    registry: Registry, server: Server, trainings: Iterator[Training]
) -> None:
    training = next(trainings)
    version = killed_after_registration(training, server, registry)
    assert version.aliases == ()
    other = Training(training.home, load_job(training.job.path, ["train.steps=7"]), training.make_bundle)
    assert other.run().version.aliases == ("champion",)
    assert training.run().version.version == 3


def test_an_image_to_image_training_ends_well_without_the_registry_that_has_its_version(
    registry: Registry, trainings: Iterator[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, but for the images and the network."""
    job, make = next(trainings).job, next(trainings).make_bundle

    def made(_training: object, _prepared: object, work: Path, folder: Path, run: TrackedRun, *_: object) -> object:
        (work / "last.ckpt").write_bytes(b"weights")
        make(folder)
        run.metrics({"challenger_psnr": 30.0}, 5)
        decision = Decision(True, "the first version", {"challenger_psnr": 30.0})
        return SimpleNamespace(figures={"challenger_psnr": 30.0}, decision=decision)

    prepared = SimpleNamespace(images=SimpleNamespace(image_format=SimpleNamespace(channels=3)), key="key")
    for name, stand_in in {
        "prepare": lambda _: prepared,
        "_same_champion": lambda *_: None,
        "digest_images": lambda _: "ab" * 32,
        "make_bundle": made,
    }.items():
        monkeypatch.setattr(train, name, stand_in)

    def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("the server restarts")

    monkeypatch.setattr(MlflowClient, "set_terminated", away)
    trained = train.train_crops(SimpleNamespace(job=job))
    assert trained.promoted
    assert [version.aliases for version in registry.versions(job.name)] == [("champion",)]


def test_a_version_that_is_damaged_in_the_registry_is_made_again(
    registry: Registry, server: Server, trainings: Iterator[Training], caplog: pytest.LogCaptureFixture
) -> None:
    training = next(trainings)
    version = killed_after_registration(training, server, registry)
    (stored,) = training.home.glob(f"artifacts/*/{version.run_id}/artifacts/model/model.onnx")
    stored.write_bytes(stored.read_bytes()[:-1])
    trained = training.run()
    assert trained.promoted
    assert trained.version.version == 2
    assert training.times == 2
    assert "damaged" in caplog.text
