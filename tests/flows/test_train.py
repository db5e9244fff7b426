"""The training flow over a stand-in for the job."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from typer.testing import CliRunner

import flows.train
from flows.cli import app
from flows.train import train_flow
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError


@pytest.fixture
def training(monkeypatch, home):
    """`pipelines.train` without torch: it notes its calls and raises what it is told to."""
    calls, failures, reasons = [], [], []

    def train_model(job, *, overrides, why):
        calls.append((job, overrides))
        reasons.append(why)
        if failures:
            raise failures.pop(0)
        tags = {"task": "reconstruct"}
        version = SimpleNamespace(name="tiles", version=2, ref="tiles/2", sha256="ab" * 32, tags=tags)
        reason = "AUROC 0.90, champion 0.93"
        return SimpleNamespace(version=version, promoted=False, reason=reason, figures={"auroc": 0.9})

    module = ModuleType("pipelines.train")
    module.train_model = train_model
    monkeypatch.setitem(sys.modules, "pipelines.train", module)
    monkeypatch.setattr(flows.train, "train", flows.train.train.with_options(retry_delay_seconds=0))
    return SimpleNamespace(calls=calls, failures=failures, reasons=reasons)


@pytest.fixture
def need(training, monkeypatch):
    """What the question whether to train is answered with."""
    module = ModuleType("pipelines.training.need")
    answer = SimpleNamespace(train=True, reason="12 files are new since tiles/1")
    module.need_of = lambda job: answer  # noqa: ARG005 - the answer is given
    monkeypatch.setitem(sys.modules, "pipelines.training.need", module)
    return answer


@pytest.fixture
def told(monkeypatch):
    """What somebody is told."""
    told = []
    monkeypatch.setattr(flows.train, "notify", lambda subject, sentences: told.append((subject, sentences)))
    return told


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "good"')
    return path


def names(client):
    return [run.name for run in client.read_flow_runs(limit=200)]


def test_a_job_is_trained_and_its_run_named_after_it(training, client, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('name = "tiles"')
    assert train_flow(job, ("train.steps=5",)).version.ref == "tiles/2"
    assert training.calls == [(job, ("train.steps=5",))]
    assert "train tiles" in names(client)


def test_parameters_arrive_as_a_deployment_sends_them(training, tmp_path):
    train_flow(str(tmp_path / "job.toml"), ["train.steps=5"])
    assert training.calls == [(tmp_path / "job.toml", ("train.steps=5",))]


def test_artifacts_hold_the_figures_and_the_verdict(training, client, tmp_path):
    train_flow(tmp_path / "job.toml")
    key = ArtifactFilterKey(any_=["train-tiles-figures", "train-tiles-version"])
    found = {each.key: each.data for each in client.read_artifacts(artifact_filter=ArtifactFilter(key=key))}
    assert '"figure": "auroc", "value": "0.9"' in found["train-tiles-figures"]
    assert "tiles/2 stays challenger" in found["train-tiles-version"]
    assert "AUROC 0.90, champion 0.93" in found["train-tiles-version"]


def test_a_training_that_is_due_and_has_nothing_to_learn_is_left_out(training, need, told, job_file):
    need.train, need.reason = False, "no file is new since tiles/1"
    assert train_flow(job_file, if_needed=True) is None
    assert not training.calls
    assert not told


def test_why_it_was_trained_is_on_record_and_told(training, need, told, job_file):
    train_flow(job_file, if_needed=True)
    assert training.reasons == ["12 files are new since tiles/1"]
    ((subject, sentences),) = told
    assert subject == "Kintsugi: tiles/2 was not promoted"
    assert sentences == ["AUROC 0.90, champion 0.93", "Trained because: 12 files are new since tiles/1"]


def test_a_training_that_somebody_starts_is_not_asked_whether_it_is_needed(training, need, job_file):
    need.train = False
    assert train_flow(job_file).version.ref == "tiles/2"


def test_a_registry_that_is_away_is_asked_again(training, tmp_path):
    training.failures.append(ConnectionRefusedError("no registry"))
    train_flow(tmp_path / "job.toml")
    assert len(training.calls) == 2


def test_what_follows_a_finished_training_does_not_fail_it(training, told, tmp_path, monkeypatch, caplog):
    def away(*_: object) -> None:
        raise ConnectionRefusedError("no server")

    monkeypatch.setattr(flows.train, "record_training", away)
    monkeypatch.setattr(flows.train, "announce", away)
    assert train_flow(tmp_path / "job.toml").version.ref == "tiles/2"
    assert told
    assert caplog.text.count("ConnectionRefusedError: no server") >= 2


def test_too_few_images_are_not(training, tmp_path):
    training.failures.append(DataError("3 images, at least 20 are needed: add some"))
    with pytest.raises(DataError, match="add some"):
        train_flow(tmp_path / "job.toml")
    assert len(training.calls) == 1


def test_a_broken_job_file_fails_with_the_jobs_message_and_the_files_name(training, client, tmp_path):
    job = tmp_path / "broken.toml"
    job.write_text("name = ")
    training.failures.append(DataError("not TOML"))
    with pytest.raises(DataError, match="not TOML"):
        train_flow(job)
    assert "train broken" in names(client)


def test_a_training_that_is_terminated_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As service managers end it: without this, a signal outside the training loop would end the process at once."""

    def terminated(_: object, *, why: str | None, fresh: bool) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("pipelines.train.train_model", terminated)
    (tmp_path / "job.toml").write_text(f'name = "a"\ntask = "denoise"\n[data]\ntrain = "{MAGNETIC_TILE / "train"}"')
    done = CliRunner().invoke(app, ["train", str(tmp_path / "job.toml")])
    assert done.exit_code == 130
    assert "start the same command again" in done.stderr
