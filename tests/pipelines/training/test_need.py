"""Whether a training that is due has anything to learn, asked of a real registry and real images."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.data import file_digests
from pipelines.data.file_digests import contents_of
from pipelines.errors import DataError, JobError
from pipelines.images import UnreadableFolder
from pipelines.jobfile.job import load_job
from pipelines.registry.batch_runs import DriftSeen, drift_since, publish_run
from pipelines.registry.store import Registry
from pipelines.registry.tracking import TrackedRun
from pipelines.score import score_folder
from pipelines.training.need import Need, need_of, weigh


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """A copy of the home in which `tiles` was trained, and of its images, to be changed."""
    shutil.copytree(trained.folder, tmp_path / "at")
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "at" / "home"))
    return tmp_path / "at"


def job_of(home, rules="", **replaced):
    text = (home / "tiles.toml").read_text() + rules
    for old, new in replaced.items():
        text = text.replace(f"{old} = ", f"{old} = {new} # ")
    (home / "tiles.toml").write_text(text)
    return load_job(home / "tiles.toml")


def test_there_is_something_to_learn_where_images_come_or_go(home):
    job = job_of(home)
    assert need_of(job).reason == "no file is new since tiles/1"
    assert not need_of(job).train

    images = sorted((home / "good").iterdir())
    shutil.copy(images[0], home / "good" / "again.jpg")  # another name for what is there
    os.utime(images[1])
    assert not need_of(job).train

    (home / "good" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    assert need_of(job) == Need(train=True, reason="1 file is new since tiles/1")
    images[2].unlink()
    images[3].unlink()
    assert need_of(job).reason == "1 file is new and 2 files are gone since tiles/1"


def test_a_folder_that_is_away_is_no_reason_to_train(home, monkeypatch):
    job = job_of(home)
    images = sorted((home / "good").iterdir())
    for image in images[: len(images) * 2 // 3]:
        image.unlink()
    need = need_of(job)
    assert not need.train
    assert "is a folder away?" in need.reason

    found = file_digests.list_images
    closed = UnreadableFolder(home / "good" / "more", "more/", "Stale file handle")
    monkeypatch.setattr(file_digests, "list_images", lambda folder: replace(found(folder), unreadable=(closed,)))
    with pytest.raises(DataError, match="check that the share is mounted"):
        need_of(job)


def test_what_was_trained_once_with_other_settings_is_not_trained_again_without(home):
    registry, job = Registry(), job_of(home)
    first = registry.get("tiles", "1")
    with TrackedRun("tiles") as run:
        other = json.dumps({**job_tag(first), "train.steps": 7})
        registry.register("tiles", registry.fetch(first), run_id=run.run_id, tags={"job": other})
        registry.challenge("tiles", 2, reason="tried")
    assert need_of(job).reason == "no file is new since tiles/1"


def test_a_version_that_nobody_has_judged_does_not_count(home):
    """Its training was killed between its registration and the decision about it."""
    registry, job = Registry(), job_of(home)
    first = registry.get("tiles", "1")
    shutil.copy(home / "tiles.toml", home / "good" / "new.png")
    fetched = Path(shutil.copytree(registry.fetch(first), home / "again"))
    split = json.loads((fetched / "split.json").read_text())
    (fetched / "split.json").write_text(json.dumps(split | {"files": sorted(contents_of(job))}))
    with TrackedRun("tiles") as run:
        registry.register("tiles", fetched, run_id=run.run_id, tags={"job": json.dumps(job_tag(first))})
    assert need_of(job).train
    registry.challenge("tiles", 2, reason="worse")
    assert need_of(job).reason == "no file is new since tiles/2"


def test_a_version_of_older_software_or_with_damaged_files_is_trained_anew(home):
    job = job_of(home)
    registry = Registry()
    path = registry.fetch(registry.get("tiles", "1")) / "split.json"
    split = json.loads(path.read_text())
    assert split.pop("files")
    with TrackedRun("tiles") as run:
        folder = Path(shutil.copytree(path.parent, home / "old"))
        (folder / "split.json").write_text(json.dumps(split))
        registry.register(
            "tiles", folder, run_id=run.run_id, tags={"job": json.dumps(job_tag(registry.get("tiles", "1")))}
        )
        registry.challenge("tiles", 2)
    assert need_of(job).reason == "tiles/2 does not tell which files there were then"


def test_another_task_under_the_same_name_is_something_to_learn(home):
    text = (home / "tiles.toml").read_text()
    (home / "tiles.toml").write_text(text.split("[model]")[0].replace("reconstruct", "denoise"))
    assert "task" in need_of(load_job(home / "tiles.toml")).reason


def test_sub_folders_and_names_of_labels_count(home):
    job = job_of(home)
    before = contents_of(job)
    (home / "good" / "line 2").mkdir()
    image = min(path for path in (home / "good").iterdir() if path.is_file())
    image.rename(home / "good" / "line 2" / image.name)
    assert len(contents_of(job) - before) == 1

    labelled = job.model_copy(update={"data": job.data.model_copy(update={"labels": home / "good"})})
    before = contents_of(labelled)
    (home / "good" / "line 2" / image.name).rename(home / "good" / "line 2" / f"other-{image.name}")
    assert len(contents_of(labelled) - before) == 1


def test_another_job_is_something_to_learn_but_another_promise_to_promote_is_not(home):
    assert not need_of(job_of(home, rules='[promote]\nrule = "always"\n')).train
    need = need_of(job_of(home, width=8))
    assert need.train
    assert need.reason == "the job has changed since tiles/1: model.width"


def test_a_name_that_is_new_is_trained(home):
    assert need_of(job_of(home, name='"nuts"')).reason == "the first training"


def job_tag(version):
    return json.loads(version.tags["job"])


@pytest.fixture
def newest():
    return SimpleNamespace(ref="tiles/3", created=datetime.now(UTC) - timedelta(days=31, hours=1))


DRIFTED = DriftSeen(*[datetime(2026, 11, 20, 6, 0, tzinfo=UTC)] * 2)
JUDGED_BY_FOLDER = DriftSeen(DRIFTED.last, DRIFTED.last - timedelta(days=3), "sharpness, noise", by_folder=True)


@pytest.mark.parametrize(
    ("rule", "new", "drifted", "train", "says"),
    [
        ("", 1, None, True, "1 file is new since tiles/3"),
        ("new_images = 50", 49, None, False, "49 files are new since tiles/3, fewer than 50 (retrain.new_images)"),
        ("new_images = 50", 50, None, True, "50 files are new since tiles/3"),
        (
            "new_images = 50", 2, DRIFTED, True,
            "scoring reported drift on 2026-11-20 06:00 UTC, and 2 files are new since tiles/3",
        ),
        (
            "new_images = 50", 0, DRIFTED, False,
            "no file is new since tiles/3; scoring reported drift on 2026-11-20 06:00 UTC: add good images that "
            "look like the new ones",
        ),
        (
            "new_images = 50", 2, JUDGED_BY_FOLDER, True,
            "scoring reported drift in sharpness, noise on 2026-11-20 06:00 UTC and judges images against their folder "
            "since 2026-11-17 06:00 UTC, and 2 files are new since tiles/3",
        ),
        (
            'new_images = 50\nmax_age = "31d"', 2, None, True,
            "tiles/3 is older than 31d, and 2 files are new since tiles/3",
        ),
        (
            'new_images = 50\nmax_age = "32d"', 2, None, False,
            "2 files are new since tiles/3, fewer than 50 (retrain.new_images)",
        ),
        ('new_images = 50\nmax_age = "1d"', 0, None, False, "no file is new since tiles/3"),
    ],
)  # fmt: skip
def test_the_rule_weighs_images_drift_and_age(tmp_path, newest, rule, new, drifted, train, says):
    path = tmp_path / "job.toml"
    path.write_text(f'name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "x"\n[retrain]\n{rule}\n')
    need = weigh(load_job(path), newest, new, 0, drifted)
    assert (need.train, need.reason) == (train, says)


def test_an_age_that_is_none_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "x"\n[retrain]\nmax_age = "soon"\n')
    with pytest.raises(JobError, match=r"'retrain\.max_age' is 'soon': not a length of time"):
        load_job(path)


def test_files_are_read_once(home, monkeypatch):
    job = job_of(home)
    first = contents_of(job)
    read: list[Path] = []
    digest = file_digests.sha256_of
    monkeypatch.setattr(file_digests, "sha256_of", lambda path: read.append(path) or digest(path))
    assert contents_of(job) == first
    assert not read
    (home / "good" / "new.png").write_bytes(b"new")
    assert len(contents_of(job) - first) == 1
    assert [path.name for path in read] == ["new.png"]


def test_drift_that_scoring_saw_is_found_by_the_next_training(home, tmp_path):
    version = Registry().get("tiles", "champion")
    out = tmp_path / "runs" / "monday"
    score_folder(home / "good", "tiles@champion", out)
    run = json.loads((out / "run.json").read_text())
    moved = {"name": "brightness", "effect": 0.1, "p_value": 1e-9, "calibration": [0.1] * 5, "batch": [0.2] * 5}
    run["drift"] = {"p_value": 1e-9, "drifted": True, "moved": "brightness", "effect": 0.1, "images": 60}
    run["drift"]["statistics"] = [moved, moved | {"name": "noise", "p_value": 0.5}]
    run["against"]["used"] = "folder"
    run["alarms"] = ["the images are not like the calibration images"]
    (out / "run.json").write_text(json.dumps(run))
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert drift_since(version, before) is None
    first = publish_run(out)
    assert publish_run(out) == first  # a second try, after a first that was cut off
    seen = drift_since(version, before)
    assert seen is not None
    assert (seen.last > before, seen.first, seen.changed, seen.by_folder) == (True, seen.last, "brightness", True)
    run["started"] = "2026-11-21T10:00:00+00:00"
    (out / "run.json").write_text(json.dumps(run))
    publish_run(out)
    again = drift_since(version, before)
    assert again is not None
    assert (again.first, again.last > seen.last) == (seen.first, True)
    run["drift"]["drifted"], run["started"] = False, "2026-11-22T10:00:00+00:00"
    (out / "run.json").write_text(json.dumps(run))
    assert publish_run(out) != first
    assert drift_since(version, before) is None  # it has ended
    assert drift_since(version, datetime.now(UTC) + timedelta(minutes=1)) is None


def test_a_run_of_a_model_that_is_in_no_registry_has_no_place_there(home, tmp_path):
    out = tmp_path / "report"
    version = Registry().get("tiles", "champion")
    score_folder(home / "good", Registry().fetch(version) / "model.onnx", out)
    assert publish_run(out) is None
