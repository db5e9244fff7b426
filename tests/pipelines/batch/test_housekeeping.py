"""What piles up over the years goes by itself: old runs in MLflow, checkpoints and digests that nobody uses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.base.locks import locked
from pipelines.data.cache import cache_folder
from pipelines.data.file_digests import UNUSED, contents_of
from pipelines.jobfile.job import load_job
from pipelines.registry.batch_runs import experiment_of, forget_published, publish_run
from pipelines.registry.tracking import RUN_FILE, TrackedRun
from pipelines.settings import settings
from pipelines.train import train_model
from pipelines.training.registration import ABANDONED, work_folder

MONTH = timedelta(days=30)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


@pytest.fixture
def job(home: Path, tmp_path: Path):
    images = tmp_path / "good"
    images.mkdir()
    (images / "one.png").write_bytes(b"no image, which does not matter here")
    (tmp_path / "tiles.toml").write_text(f'name = "tiles"\ntask = "reconstruct"\ndata.train = "{images}"\n')
    return load_job(tmp_path / "tiles.toml")


def finished(folder: Path) -> Path:
    """The account of a run of a registered model, and its report."""
    folder.mkdir(parents=True)
    model = {"name": "tiles", "version": "1", "sha256": "0" * 64}
    run = {
        "model": model, "verb": "score", "folder": "inbox", "started": folder.name, "alarms": [], "drift": None,
        "counts": {"ok": 3, "failed": 0, "flagged": 0}, "timings": {"images_per_second": 2.0},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "report.html").write_text("a report")
    return folder


def test_a_fresh_training_begins_without_checkpoints(job) -> None:
    with work_folder(job, "mine") as work, work_folder(job, "other") as other:
        for folder in (work, other):
            folder.mkdir()
            (folder / "last.ckpt").write_bytes(b"weights")
    with work_folder(job, "mine") as work:
        assert (work / "last.ckpt").is_file()
    with work_folder(job, "mine", fresh=True) as work:
        assert not work.exists()
    assert (other / "last.ckpt").is_file()


def test_what_a_schedule_s_runs_left_in_mlflow_goes_when_it_is_old(home: Path, tmp_path: Path) -> None:
    names = ("2026-08-01T06-00-00Z-score-inbox", "2026-11-21T06-00-00Z-score-inbox", "2026-08-01T06-00-00Z-score-other")
    runs = {name: publish_run(finished(tmp_path / "reports" / name)) for name in names}
    runs["elsewhere"] = publish_run(finished(tmp_path / "elsewhere" / names[0]))
    runs["by hand"] = publish_run(finished(tmp_path / "reports" / "by hand"))
    client = MlflowClient(settings().tracking_uri)
    files = {name: Path(client.get_run(run).info.artifact_uri.removeprefix("file://")) for name, run in runs.items()}
    assert all((folder / "report.html").is_file() for folder in files.values())
    newest, now = tmp_path / "reports" / names[1], datetime.now(UTC)

    assert forget_published(newest, MONTH, now) == 0
    assert forget_published(tmp_path / "reports" / "by hand", timedelta(0), now + MONTH) == 0
    client.set_tag(runs[names[1]], "series", "of another machine, where that path is another folder")
    assert forget_published(newest, timedelta(0), now + MONTH) == 1
    experiment = client.get_experiment_by_name(experiment_of("tiles")).experiment_id
    left = {run.info.run_id for run in client.search_runs([experiment])}
    assert left == set(runs.values()) - {runs[names[0]]}
    assert [name for name, folder in files.items() if not folder.exists()] == [names[0]]


def test_checkpoints_that_nobody_goes_on_with_go_after_a_month(job, home: Path) -> None:
    long_ago = time.time() - ABANDONED - 60
    for name in ("old", "held", "resumed", "new"):
        with work_folder(job, name) as work:
            work.mkdir()
            (work / "last.ckpt").write_bytes(b"weights")
    runs = home / "runs" / "tiles"
    killed = TrackedRun("tiles", kept=runs / "old" / RUN_FILE).__enter__()
    for name in ("old", "held", "resumed"):
        for path in (*(runs / name).iterdir(), runs / name):
            os.utime(path, (long_ago, long_ago))
    (runs / "resumed" / "last.ckpt").touch()
    with locked(runs / "held.lock"), work_folder(job, "another"):
        assert sorted(each.name for each in runs.iterdir() if each.is_dir()) == ["held", "new", "resumed"]
    assert MlflowClient(settings().tracking_uri).get_run(killed.run_id).info.status == "KILLED"
    with work_folder(job, "held"):
        assert (runs / "held" / "last.ckpt").is_file(), "its own are never removed"


def test_digests_of_folders_that_nobody_asks_about_go(job, home: Path, tmp_path: Path) -> None:
    first = contents_of(job)
    (kept,) = (home / "cache" / "contents").glob("*.json")
    gone = kept.with_name("gone.json")
    shutil.copy(kept, gone)
    for path in (kept, gone):
        os.utime(path, (time.time() - UNUSED - 60,) * 2)
    assert contents_of(job) == first
    assert kept.is_file(), "it has just been used"
    assert not gone.exists()


def test_a_fresh_training_reads_every_file_again(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "good" / "one.png"
    before, first = image.stat(), contents_of(job)
    image.write_bytes(image.read_bytes().swapcase())
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents_of(job) == first
    monkeypatch.setattr("pipelines.train.prepare", lambda job: pytest.fail(",".join(contents_of(job) - first)))
    with pytest.raises(pytest.fail.Exception, match=r"^[0-9a-f]{64}$"):
        train_model(job, fresh=True)
    assert contents_of(job) != first


def test_caches_of_another_user_end_no_training(home: Path, broken: dict[str, int]) -> None:
    cache = home / "cache" / "data"
    for name in ("theirs", "unlisted"):
        (cache / name).mkdir(parents=True)
        (cache / name / "lock").touch()
        (cache / name / "images.npy").write_bytes(b"pixels")
    broken |= {str(cache / "theirs"): errno.EACCES, str(cache / "unlisted" / "images.npy"): errno.EACCES}
    with cache_folder({"images": "of mine"}) as folder:
        assert folder.is_dir()


def test_checkpoints_that_the_system_refuses_to_show_end_no_training(job, home: Path, broken: dict[str, int]) -> None:
    (home / "runs" / "tiles" / "stale").mkdir(parents=True)
    broken[str(home / "runs" / "tiles" / "stale")] = errno.ESTALE
    with work_folder(job, "mine") as work:
        assert work.name == "mine"
