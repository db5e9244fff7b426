from __future__ import annotations

import fcntl
import json
import shutil
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest

from pipelines.batch.retention import forget_runs

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
AGE = timedelta(days=90)
OLD, NEW = "2026-08-01T06-00-00Z-score-inbox", "2026-11-21T06-00-00Z-score-inbox"


@pytest.fixture
def run(tmp_path):
    def make(name, finished, marker=True):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"finished": finished}))
        if marker:
            (folder / ".kintsugi-run").mkdir()
            (folder / ".kintsugi-run" / "lock").touch()
        return folder

    return make


def test_old_runs_that_a_schedule_made_are_removed_and_nothing_else(run, tmp_path):
    old = run(OLD, "2026-08-01T06:10:00+00:00")
    kept = [
        run(NEW, "2026-11-21T06:10:00+00:00"),
        run("2026-08-02T06-00-00Z-score-inbox", None),  # was cut off: somebody may look why
        run("monday", "2026-08-01T06:10:00+00:00"),  # named by a person, or a delivery
        run("2026-08-06T06-00-00Z-score-outbox", "2026-08-06T06:10:00+00:00"),  # of another schedule
        run("2026-08-03T06-00-00Z-score-inbox", "2026-08-01T06:10:00+00:00", marker=False),
        run("2026-08-04T06-00-00Z-score-inbox", "last summer"),
    ]
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (tmp_path / "2026-08-05T06-00-00Z-score-inbox").symlink_to(elsewhere)
    (tmp_path / "tiles.html").touch()

    assert forget_runs(kept[0], AGE, NOW) == [old]
    assert not old.exists()
    assert all(folder.exists() for folder in (*kept, elsewhere, tmp_path / "tiles.html"))
    assert forget_runs(kept[0], AGE, NOW) == []
    assert forget_runs(tmp_path / "monday", AGE, NOW) == []


def test_a_run_that_is_done_again_just_now_stays(run):
    folder = run(OLD, "2026-08-01T06:10:00+00:00")
    with (folder / ".kintsugi-run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert forget_runs(folder, AGE, NOW) == []
    assert forget_runs(folder, AGE, NOW) == [folder]


def test_where_nothing_has_run_there_is_nothing_to_remove(tmp_path):
    assert forget_runs(tmp_path / "none" / NEW, AGE, NOW) == []


def test_one_that_could_be_removed_in_part_only_is_known_to_be_a_run_and_removed_later(run, monkeypatch):
    folder = run(OLD, "2026-08-01T06:10:00+00:00")
    (folder / "maps").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", Mock(side_effect=OSError("a file is in use")))
        assert forget_runs(folder, AGE, NOW) == []
    assert (folder / "run.json").exists()
    assert forget_runs(folder, AGE, NOW) == [folder]
