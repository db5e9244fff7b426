from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta

import pytest

from pipelines.batch.deliveries import Inbox


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


def take(inbox, clock, name):
    """Wait until it has rested."""
    assert inbox.find_next() is None
    clock.now += 60
    assert inbox.find_next() == inbox.folder / name


def test_a_delivery_is_given_out_once_when_it_has_rested(inbox, clock):
    deliver(inbox, "monday", "1.png")
    assert inbox.find_next() is None
    clock.now += 59
    assert inbox.find_next() is None
    clock.now += 1
    assert inbox.find_next() == inbox.folder / "monday"
    clock.now += 1000
    assert inbox.find_next() is None


def test_one_that_still_grows_is_waited_for(inbox, clock):
    deliver(inbox, "monday", "1.png")
    for number in range(2, 6):
        assert inbox.find_next() is None
        clock.now += 50
        deliver(inbox, "monday", f"{number}.png")
    assert inbox.find_next() is None
    (inbox.folder / "monday" / "5.png").write_bytes(b"more pixels")
    clock.now += 60
    assert inbox.find_next() is None
    clock.now += 60
    assert inbox.find_next() == inbox.folder / "monday"


def test_an_empty_folder_and_hidden_ones_and_loose_files_are_none(inbox, clock):
    deliver(inbox, "empty")
    deliver(inbox, ".sync", "1.png")
    (inbox.folder / "loose.png").write_bytes(b"")
    for _ in range(3):
        assert inbox.find_next() is None
        clock.now += 100


def test_what_was_done_before_a_restart_is_not_done_again(inbox, clock):
    deliver(inbox, "monday", "1.png")
    deliver(inbox, "tuesday", "1.png")
    take(inbox, clock, "monday")
    inbox.record_done(inbox.folder / "monday")
    assert inbox.find_next().name == "tuesday"  # and is cut off with the process

    again = Inbox(inbox.folder, inbox.out, inbox.settle, clock)
    again.open()
    take(again, clock, "tuesday")
    clock.now += 1000
    assert again.find_next() is None


@pytest.mark.parametrize("place", ["2.png", "camera 2/2.png"])
def test_what_comes_while_a_delivery_is_worked_on_is_worked_on_too(inbox, clock, place):
    deliver(inbox, "monday", "1.png")
    take(inbox, clock, "monday")
    late = inbox.folder / "monday" / place
    late.parent.mkdir(exist_ok=True)
    late.write_bytes(b"late")
    os.utime(late, (1e9, 1e9))
    os.utime(inbox.folder / "monday", (1e9, 1e9))  # as rsync leaves it
    inbox.record_done(inbox.folder / "monday")
    take(inbox, clock, "monday")
    inbox.record_done(inbox.folder / "monday")
    clock.now += 1000
    assert inbox.find_next() is None


def test_what_comes_days_later_is_found_within_minutes(inbox, clock):
    deliver(inbox, "monday", "1.png")
    take(inbox, clock, "monday")
    inbox.record_done(inbox.folder / "monday")
    assert inbox.find_next() is None
    clock.now += 250_000
    deliver(inbox, "monday", "late.png")
    take(inbox, clock, "monday")


def test_one_that_fails_is_tried_three_times_and_again_when_something_comes(inbox, clock):
    deliver(inbox, "monday", "1.png")
    take(inbox, clock, "monday")
    monday = inbox.folder / "monday"
    names = [inbox.name_attempt(monday)]
    while inbox.record_failure(monday):
        names.append(inbox.name_attempt(monday))
    assert len(set(names)) == 3
    clock.now += 10_000
    assert inbox.find_next() is None
    deliver(inbox, "monday", "2.png")
    take(inbox, clock, "monday")
    inbox.open()  # its server was away
    take(inbox, clock, "monday")


def test_reports_and_names_that_no_file_can_hold_are_no_deliveries(inbox, clock):
    deliver(inbox, "report", "1.png")
    (inbox.folder / "report" / ".kintsugi-run").mkdir()
    (inbox.folder / os.fsdecode(b"latin-\xe9")).mkdir()
    (inbox.folder / os.fsdecode(b"latin-\xe9") / "1.png").touch()
    for _ in range(3):
        assert inbox.find_next() is None
        clock.now += 100


def test_several_are_given_out_one_by_one(inbox, clock):
    for name in ("b", "a", "c"):
        deliver(inbox, name, "1.png")
    inbox.find_next()
    clock.now += 60
    assert [inbox.find_next().name for _ in range(3)] == ["a", "b", "c"]


def test_a_share_that_is_away_is_looked_at_again(inbox, clock):
    deliver(inbox, "monday", "1.png")
    inbox.find_next()
    shutil.move(inbox.folder, inbox.folder.with_name("away"))
    clock.now += 60
    assert inbox.find_next() is None
    shutil.move(inbox.folder.with_name("away"), inbox.folder)
    assert inbox.find_next() == inbox.folder / "monday"


def test_a_damaged_record_counts_as_nothing_done(inbox, clock):
    deliver(inbox, "monday", "1.png")
    take(inbox, clock, "monday")
    inbox.record_done(inbox.folder / "monday")
    (inbox.out / ".arrivals.json").write_text("[1")
    take(Inbox(inbox.folder, inbox.out, inbox.settle, clock), clock, "monday")


AS_SOMEBODY_ELSE = """
import json, logging, os, sys
from datetime import timedelta
from pathlib import Path
from pipelines.batch.deliveries import Inbox
os.chdir(sys.argv[1])
if os.getuid() == 0:  # whom no mode keeps out
    os.setuid(65534)
for name in ("closed", "half/camera 2", "open", "unlisted"):
    Path("inbox", name).mkdir(parents=True)
    Path("inbox", name, "1.png").write_bytes(b"pixels")
for name, mode in (("closed", 0), ("half/camera 2", 0), ("unlisted", 0o400)):
    Path("inbox", name).chmod(mode)
logging.getLogger("pipelines").addHandler(logging.StreamHandler(sys.stderr))
clock = [100.0]
inbox = Inbox(Path("inbox"), Path("reports"), timedelta(seconds=60), lambda: clock[0])
def look():
    found = []
    for _ in range(9):
        found.append(inbox.find_next())
        clock[0] += 60
    return [each.name for each in found if each]
given = [look()]
for name in ("closed", "half/camera 2", "unlisted"):
    Path("inbox", name).chmod(0o700)
given.append(look())
print(json.dumps(given))
"""


def test_a_delivery_that_may_not_be_read_waits_and_the_others_go_on(tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox").chmod(0o777)
    ended = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY_ELSE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [["open"], ["closed", "half", "unlisted"]]
    lines = [line for line in ended.stderr.splitlines() if "cannot be read" in line]
    assert len(lines) == 3, ended.stderr  # once each, however often they are looked at
    for name in ("closed", "half", "unlisted"):
        assert any(f"inbox/{name}" in line and "Permission denied" in line for line in lines)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_delivery_on_a_stale_share_does_not_change_by_it(inbox, clock, broken, code, caplog):
    for name in ("a", "b", "c"):
        deliver(inbox, name, "1.png")
    deliver(inbox, "a/sub", "2.png")
    take(inbox, clock, "a")
    inbox.record_done(inbox.folder / "a")
    broken[str(inbox.folder / "a" / "sub")] = broken[str(inbox.folder / "b")] = code
    clock.now += 10_000
    found = []
    for _ in range(5):
        found.append(inbox.find_next())
        clock.now += 1000
    assert [each.name for each in found if each] == ["c"]
    assert sum("cannot be read" in record.message for record in caplog.records) == 2
    broken.clear()
    found = []
    for _ in range(5):
        found.append(inbox.find_next())
        clock.now += 1000
    assert [each.name for each in found if each] == ["b"]


def test_a_record_on_a_stale_share_does_not_count_as_nothing_done(inbox, clock, broken, caplog):
    deliver(inbox, "monday", "1.png")
    take(inbox, clock, "monday")
    inbox.record_done(inbox.folder / "monday")
    again = Inbox(inbox.folder, inbox.out, inbox.settle, clock)
    broken[str(inbox.out)] = errno.ESTALE
    for _ in range(3):
        assert again.find_next() is None
        clock.now += 1000
    assert "Stale file handle" in caplog.text
    broken.clear()
    for _ in range(3):
        assert again.find_next() is None
        clock.now += 1000


def test_a_record_that_cannot_be_written_is_written_later(inbox, clock, broken, caplog):
    for name in ("a", "b"):
        deliver(inbox, name, "1.png")
    take(inbox, clock, "a")
    broken[str(inbox.out)] = errno.EIO
    inbox.record_done(inbox.folder / "a")
    assert "a is done, but" in caplog.text
    broken.clear()
    assert inbox.find_next() == inbox.folder / "b"
    inbox.record_done(inbox.folder / "b")
    assert set(json.loads((inbox.out / ".arrivals.json").read_text())) == {"a", "b"}
