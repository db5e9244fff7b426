from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flows.schedules import find_jobs, plan
from pipelines.errors import JobError
from pipelines.jobfile.job import load_job


@pytest.fixture
def job(tmp_path):
    def write(schedule, name="tiles"):
        path = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(f'name = "{name}"\ntask = "reconstruct"\n[data]\ntrain = "good"\n[schedule]\n{schedule}\n')
        return load_job(path)

    return write


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("5m", 300), ("6h", 21_600), ("1d", 86_400), (" 2 w ", 1_209_600)]
)
def test_an_interval_is_read(job, text, seconds):
    (planned,) = plan([job(f'train = "{text}"')])
    assert planned.schedule.interval == timedelta(seconds=seconds)


def test_a_daily_interval_means_midnight_of_its_zone_whenever_serve_was_started(job):
    (planned,) = plan([job('train = "1d"\ntimezone = "Europe/Berlin"')])
    anchor = planned.schedule.anchor_date
    assert anchor < datetime.now(UTC)
    assert anchor.astimezone(ZoneInfo("Europe/Berlin")).timetz().replace(tzinfo=None).isoformat() == "00:00:00"


def test_a_cron_line_keeps_its_zone(job):
    (planned,) = plan([job('train = "0 2 * * 0"\ntimezone = "Asia/Tokyo"')])
    assert (planned.schedule.cron, planned.schedule.timezone) == ("0 2 * * 0", "Asia/Tokyo")


def test_scoring_uses_the_champion_and_a_folder_for_each_run(job, tmp_path):
    (planned,) = plan([job('score = "1h"\nfolder = "inbox"\nout = "reports"')])
    assert planned.name == "score-tiles"
    assert planned.parameters == {
        "folder": str(tmp_path / "inbox"),
        "model": "tiles@champion",
        "out": str(tmp_path / "reports"),
        "own_folder": True,
        "series": True,
        "keep": None,
        "against": "auto",
        "alarm": {"flagged": None, "failed": None, "drift": True, "fewest": 20},
    }


def test_what_arrives_is_scored_with_the_champion_into_a_folder_of_its_name(job, tmp_path):
    (planned,) = plan([job('arrivals = "2m"\nfolder = "inbox"\nout = "reports"\nbudget = 3')])
    assert (planned.name, planned.flow, planned.schedule) == ("arrivals-tiles", "score", None)
    assert planned.parameters.items() >= {"model": "tiles@champion", "own_folder": False, "budget": 3}.items()


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("budget = 20", {"budget": 20}),
        ("false_discoveries = 0.1", {"false_discoveries": 0.1}),
        ("groups = true", {"groups": True}),
        ('against = "folder"', {"against": "folder"}),
    ],
)
def test_the_rule_of_the_schedule_reaches_the_flow(job, rule, value):
    (planned,) = plan([job(f'score = "1d"\nfolder = "inbox"\nout = "reports"\n{rule}')])
    assert planned.parameters.items() > value.items()


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (
            'score = "1d"\nfolder = "i"\nout = "o"\nbudget = 9\ngroups = true',
            "'schedule.budget' and 'schedule.groups' exclude each other",
        ),
        ('train = "0 25 * * *"', "neither a cron line nor an interval"),
        ('train = "every day"', "write a cron line"),
        ('train = "0s"', "neither a cron line nor an interval"),
        ('train = "x"', "'schedule.train' is 'x'"),
        ('score = "1h"\nout = "reports"', "'schedule.score' needs 'schedule.folder'"),
        ('arrivals = "1h"\nout = "reports"', "'schedule.arrivals' needs 'schedule.folder'"),
        ('arrivals = "soon"\nfolder = "i"\nout = "o"', "'schedule.arrivals' is 'soon': not a length of time"),
        ('score = "1h"\nfolder = "inbox"', "'schedule.score' needs 'schedule.out'"),
        ('train = "1h"\ntimezone = "Europe/Atlantis"', "'Europe/Atlantis' is not a time zone"),
        ('train = "1h"\ntimezone = "../etc"', "'../etc' is not a time zone"),
    ],
)
def test_a_schedule_that_cannot_be_carried_out_is_refused(job, schedule, says):
    with pytest.raises(JobError, match=says):
        job(schedule)  # as it is read: `kintsugi train` refuses it too


def test_without_any_schedule_there_is_nothing_to_serve(job):
    with pytest.raises(JobError, match=r"no job has a schedule.*add a table"):
        plan([job(""), job("", name="nuts")])


def test_a_job_without_a_schedule_is_left_out(job):
    assert [planned.name for planned in plan([job(""), job('train = "1d"', name="nuts")])] == ["train-nuts"]


def test_two_jobs_of_one_name_are_refused(job):
    with pytest.raises(JobError, match="both have the name 'tiles'"):
        plan([job('train = "1d"'), job('train = "2d"')])


def test_jobs_are_found_in_folders(tmp_path):
    for name in ("b.toml", "a.toml", "notes.txt"):
        (tmp_path / name).touch()
    assert find_jobs([tmp_path]) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert find_jobs([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]


def test_without_paths_the_folder_jobs_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match=r"the folder \./jobs does not exist: give job files, or folders with job files"):
        find_jobs([])
    (tmp_path / "jobs").mkdir()
    with pytest.raises(JobError, match=r"no \.toml file in jobs"):
        find_jobs(())
    (tmp_path / "jobs" / "a.toml").touch()
    assert [path.name for path in find_jobs([])] == ["a.toml"]


@pytest.mark.parametrize(("path", "says"), [("missing", "missing does not exist"), (".", "no .toml file")])
def test_nothing_to_find_is_an_error(tmp_path, path, says):
    with pytest.raises(JobError, match=says):
        find_jobs([tmp_path / path])
