"""Both batch jobs on a Ray cluster of several nodes: the same bytes, plain words, and a node that is killed."""

from __future__ import annotations

import gc
import json
import pickle
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError, RayTaskError

import pipelines.batch.engines
import pipelines.batch.folder_run
from pipelines.base.concurrency import Clock
from pipelines.batch.engines import check_engine, on_ray
from pipelines.batch.folder_run import Shard
from pipelines.errors import EngineError
from pipelines.images import FileList
from pipelines.score import score_folder

SMALL_SHARDS = (
    "import pipelines.batch.folder_run; pipelines.batch.folder_run.SHARD_FILES = 3; from flows.cli import main; main()"
)
pytestmark = pytest.mark.filterwarnings("ignore:::ray")  # its own deprecations


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that does no work, and one worker of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setattr(pipelines.batch.folder_run, "SHARD_FILES", 3)
    return cluster


def test_the_same_bytes_as_in_this_process(verb, images, tmp_path, stable_bytes, on_cluster) -> None:
    (images / "good" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    here = verb.run(images, tmp_path / "here")
    there = type(verb)(verb.name, verb.model, (*verb.options, "--engine", "ray")).run(images, tmp_path / "there")
    assert here.code == there.code == 3
    assert stable_bytes(tmp_path / "here") == stable_bytes(tmp_path / "there")
    assert not ray.is_initialized()
    stages = json.loads((tmp_path / "there" / "run.json").read_text())["timings"]
    assert min(stages["decode"], stages["run"]) > 0


def test_what_a_worker_cannot_write_is_told(images, tmp_path, trained, on_cluster, monkeypatch) -> None:
    out = tmp_path / "out"

    def run_all(job, shards, advance):
        shutil.rmtree(job.output.store.folder)
        job.output.store.folder.write_text("in the way")
        on_ray(job, shards, advance)

    monkeypatch.setattr(pipelines.batch.engines, "on_ray", run_all)
    with pytest.raises(OSError, match="shards-"):
        score_folder(images, str(trained.model), out, engine="ray")
    ends = time.monotonic() + 30
    while ray.is_initialized() and time.monotonic() < ends:  # what the error holds on to goes with it, in its own time
        gc.collect()
        time.sleep(0.1)
    assert not ray.is_initialized()


@pytest.fixture
def many(images: Path) -> Path:
    """94 images."""
    for copy in range(12):
        shutil.copytree(images / "good", images / f"copy {copy}")
    return images


@contextmanager
def begun(verb, images: Path, out: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[Path]]]:
    """A job that has its first rows, and the files of these."""
    command = [sys.executable, "-c", SMALL_SHARDS, *verb.words(images, out), "--engine", "ray"]
    told = out.with_name("told.txt")
    with told.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as running:
        try:
            until(lambda: running.poll() is not None or any(out.glob(".kintsugi-run/shards-*/*.parquet")))
            assert running.poll() is None, told.read_text()
            yield running, list(out.glob(".kintsugi-run/shards-*/*.parquet"))
            running.wait(timeout=240)
        finally:
            running.kill()
    until(lambda: not workers())


def until(there: Callable[[], bool], seconds: float = 120) -> None:
    given_up = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < given_up
        time.sleep(0.05)


def workers() -> list[Path]:
    """Processes of Ray that do shards."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found += [path] if b"ray::MapWorker" in path.read_bytes() else []
    return found


def test_a_stopped_run_goes_on_without_the_cluster(restore, many, tmp_path, stable_bytes, on_cluster) -> None:
    out = tmp_path / "there"
    with begun(restore, many, out) as (running, _):
        running.terminate()
    assert running.returncode == 130
    assert "start the same command again to continue" in out.with_name("told.txt").read_text()
    assert restore.run(many, out).code == 0
    restore.run(many, tmp_path / "here")
    assert stable_bytes(tmp_path / "here") == stable_bytes(out)


def test_a_killed_node_loses_nothing(many, tmp_path, stable_bytes, restore, on_cluster: Cluster) -> None:
    """The only worker's machine is killed when its first rows are there; another one that joins does the rest."""
    out = tmp_path / "there"
    with begun(restore, many, out) as (running, done):
        on_cluster.remove_node(next(iter(on_cluster.worker_nodes)), allow_graceful=False)
        on_cluster.add_node(num_cpus=1)
    assert running.returncode == 0, out.with_name("told.txt").read_text()
    assert len(done) < len(range(0, 94, 3))
    restore.run(many, tmp_path / "here")
    rows = pq.read_table(out / "results.parquet")["path"].to_pylist()
    assert len(set(rows)) == len(rows) == 94
    assert stable_bytes(tmp_path / "here") == stable_bytes(out)


def test_no_cluster_is_one_line(score, images, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    ended = type(score)(score.name, score.model, ("--engine", "ray")).run(images, tmp_path / "out")
    assert ended.code == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in ended.lines[-1]
    assert not (tmp_path / "out").exists()


def test_engines_by_name() -> None:
    assert check_engine("ray") == "ray"
    with pytest.raises(EngineError, match="no engine 'spark': use local or ray"):
        check_engine("spark")


class _Job:
    """Six images in three shards; the cluster fails as often as it is told to."""

    def __init__(self) -> None:
        self.done: set[int] = set()
        self.left = 6
        self.stages = Clock("run")
        self.output = SimpleNamespace(sweep=lambda: None)

    def count_missing(self) -> int:
        return 0

    def shards(self) -> list[Shard]:
        files = FileList.of(Path(), [])
        missing = sorted({0, 1, 2} - self.done)
        self.left = 2 * len(missing)
        return [Shard(number, files, np.arange(2)) for number in missing]


def test_where_ray_gives_up_it_is_begun_anew(monkeypatch) -> None:
    """Two times a shard is done and the cluster lost before it is told."""
    job, told, losses = _Job(), list[int](), [RayActorError(), RayActorError()]

    def done(job, shards):
        for shard in shards:
            job.done.add(shard.number)
            if losses:
                raise losses.pop()
            yield 2

    monkeypatch.setattr(pipelines.batch.engines, "_done", done)
    on_ray(job, job.shards(), told.append)
    assert sum(told) == 6
    assert job.done == {0, 1, 2}


def test_what_a_cluster_cannot_do_is_told_once(monkeypatch) -> None:
    def refused(job, shards):
        raise RayTaskError("shard", "No module named 'pipelines'", ImportError())

    monkeypatch.setattr(pipelines.batch.engines, "_done", refused)
    job = _Job()
    with pytest.raises(EngineError, match=r"cannot do this job: .*No module named 'pipelines'"):
        on_ray(job, job.shards(), [].append)


def test_what_goes_wrong_on_another_machine_says_where() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "get", lambda _: 1 / 0)
        answer = pipelines.batch.engines._Worker([None], {})({"shard": np.array([0])})
    error = pickle.loads(answer["error"][0])  # noqa: S301 - our own
    assert isinstance(error, EngineError)
    assert str(error) == f"on {platform.node()}: ZeroDivisionError: division by zero"


def test_it_ends_where_no_worker_gets_anything_done(monkeypatch) -> None:
    def lost(job, shards):
        raise RayActorError

    job = _Job()
    monkeypatch.setattr(pipelines.batch.engines, "_done", lost)
    with pytest.raises(EngineError, match="keeps losing its workers"):
        on_ray(job, job.shards(), [].append)
