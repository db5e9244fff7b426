from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta

import pytest

from pipelines.arrivals import Inbox


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def inbox(tmp_path, clock):
    (tmp_path / "inbox").mkdir()
    return Inbox(tmp_path / "inbox", tmp_path / "reports", timedelta(seconds=60), clock)


def deliver(inbox, name, *files):
    (inbox.folder / name).mkdir(exist_ok=True)
    for file in files:
        (inbox.folder / name / file).write_bytes(b"pixels")
        os.utime(inbox.folder / name / file, (1e9, 1e9))  # as a copy that keeps times


def finish(inbox, name, at="2026-11-22T10:00:00+00:00"):
    (inbox.out / name).mkdir(parents=True, exist_ok=True)
    (inbox.out / name / "run.json").write_text(json.dumps({"finished": at}))


def test_a_delivery_is_given_out_once_when_it_has_rested(inbox, clock):
    deliver(inbox, "monday", "1.png")
    assert inbox.arrived() is None
    clock.now += 59
    assert inbox.arrived() is None
    clock.now += 1
    assert inbox.arrived() == inbox.folder / "monday"
    clock.now += 1000
    assert inbox.arrived() is None


def test_one_that_still_grows_is_waited_for(inbox, clock):
    deliver(inbox, "monday", "1.png")
    for number in range(2, 6):
        assert inbox.arrived() is None
        clock.now += 50
        deliver(inbox, "monday", f"{number}.png")
    assert inbox.arrived() is None
    (inbox.folder / "monday" / "5.png").write_bytes(b"more pixels")
    clock.now += 60
    assert inbox.arrived() is None
    clock.now += 60
    assert inbox.arrived() == inbox.folder / "monday"


def test_an_empty_folder_and_hidden_ones_and_loose_files_are_none(inbox, clock):
    deliver(inbox, "empty")
    deliver(inbox, ".sync", "1.png")
    (inbox.folder / "loose.png").write_bytes(b"")
    for _ in range(3):
        assert inbox.arrived() is None
        clock.now += 100


def test_what_was_done_before_a_restart_is_not_done_again_unless_something_came(inbox, clock):
    deliver(inbox, "monday", "1.png")
    deliver(inbox, "tuesday", "1.png")
    finish(inbox, "monday")
    finish(inbox, "tuesday", at=None)  # that run was cut off
    inbox.arrived()
    clock.now += 60
    assert inbox.arrived() == inbox.folder / "tuesday"
    assert inbox.arrived() is None

    deliver(inbox, "monday", "2.png")
    os.utime(inbox.folder / "monday", (2e9, 2e9))
    assert inbox.arrived() is None
    clock.now += 60
    assert inbox.arrived() == inbox.folder / "monday"


def test_several_are_given_out_one_by_one(inbox, clock):
    for name in ("b", "a", "c"):
        deliver(inbox, name, "1.png")
    inbox.arrived()
    clock.now += 60
    assert [inbox.arrived().name for _ in range(3)] == ["a", "b", "c"]


def test_a_share_that_is_away_is_looked_at_again(inbox, clock):
    deliver(inbox, "monday", "1.png")
    inbox.arrived()
    shutil.move(inbox.folder, inbox.folder.with_name("away"))
    clock.now += 60
    assert inbox.arrived() is None
    shutil.move(inbox.folder.with_name("away"), inbox.folder)
    assert inbox.arrived() == inbox.folder / "monday"


def test_damaged_accounts_count_as_nothing_done(inbox, clock):
    deliver(inbox, "monday", "1.png")
    finish(inbox, "monday")
    (inbox.out / "monday" / "run.json").write_text("[1")
    inbox.arrived()
    clock.now += 60
    assert inbox.arrived() == inbox.folder / "monday"
