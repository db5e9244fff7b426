"""The page for a team: which requests come in, which runs are found, and under whose name answers are kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from pipelines.errors import FolderError, ReviewError
from pipelines.review.answers import Answers
from pipelines.review.desk import MOST_OPEN, Desks
from pipelines.review.guard import MOST_BYTES, Door, team_door
from pipelines.review.server import make_team_app

URL, SECRET = "http://images.example:8000/review/", "battery-staple-battery"
ORIGIN = "http://images.example:8000"
HOSTILE = ["<img src=x onerror=alert(1)>", "a'\"&b", "%2e%2e", "ä ö"]
KNOWN = {"x-kintsugi-secret": SECRET, "origin": ORIGIN}


class Team:
    """What the web server before the page sees."""

    def __init__(self, folder: Path, home: Path, door: Door) -> None:
        self.answers = Answers(home / "answers.sqlite3")
        self.desks = Desks(folder, self.answers)
        self.client = TestClient(make_team_app(self.desks, door), ORIGIN, headers=KNOWN, follow_redirects=False)

    def get(self, address: str, **options: Any) -> Any:
        return self.client.get(f"/review/{address}", **options)

    def answer(self, run: str, key: str = "k", headers: Any = None, **more: object) -> Any:
        body = {"number": 0, "verdict": "good", "queue": "teach", "key": key}
        return self.client.post(f"/review/run/{run}/answers", json=body | more, headers=headers)


@pytest.fixture
def reports(make_run, tmp_path: Path) -> Path:
    """Folder of runs: some with names that are traps, one that did not finish, and one that is hidden."""
    out, folder = make_run(tmp_path), tmp_path / "reports"
    for number, name in enumerate(["day", *HOSTILE, "unfinished", ".hidden"]):
        shutil.copytree(out, folder / name)
        record = json.loads((out / "run.json").read_text()) | {"started": f"2026-12-0{number + 1}T10:00:00Z"}
        if name == "unfinished":
            del record["finished"]
        (folder / name / "run.json").write_text(json.dumps(record))
    shutil.copytree(out, tmp_path / "outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    return folder


@pytest.fixture
def team(reports: Path, tmp_path: Path) -> Team:
    return Team(reports, tmp_path / "home", team_door(URL, SECRET))


def test_finished_runs_are_listed_and_their_names_are_data(team: Team) -> None:
    text = team.get("").text
    for name in ("unfinished", ".hidden", "run/link", "<img"):
        assert name not in text
    assert "&lt;img src=x" in text
    names = [run.name for run in team.desks.runs()]
    assert names == [*reversed(HOSTILE), "day"], "the newest first"
    for name in names:
        assert team.desks.desk(name).run.out.name == name
        assert f'href="run/{quote(name, safe="")}/"' in text


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    team = Team(tmp_path / "none", tmp_path / "home", team_door(URL, SECRET))
    assert "No run has finished yet" in team.get("").text


def test_an_output_folder_by_itself_is_the_only_run(make_run, tmp_path: Path) -> None:
    team = Team(make_run(tmp_path), tmp_path / "home", team_door(URL, SECRET))
    assert [run.name for run in team.desks.runs()] == ["out"]
    assert team.get("run/out/facts").status_code == 200
    assert team.get("run/maps/facts").status_code == 404


OTHERS = ["nothing", ".hidden", "link", "unfinished", "%2e%2e%2foutside", "..%2foutside", "%00", "x" * 300]


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_no_runs(team: Team, name: str) -> None:
    for what in ("", "facts", "picture/0/image"):
        assert team.get(f"run/{name}/{what}").status_code == 404
    assert team.answer(name).status_code in (404, 405)
    assert team.get(f"run/{name}").status_code == 404


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "/", "a\0b", "\udcff", "day/", "day/maps"])
def test_no_name_leads_out_of_the_folder(team: Team, name: str) -> None:
    with pytest.raises(FolderError):
        team.desks.desk(name)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"x-kintsugi-secret": "guess"}, 403),
        ({"x-kintsugi-secret": ""}, 403),
        ({"x-kintsugi-secret": SECRET + "x"}, 403),
        ({"host": "127.0.0.1:8765"}, 403),
        ({"host": "images.example"}, 403),
        ({"origin": "https://images.example:8000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 400),
    ],
)
def test_an_answer_comes_from_the_page_behind_the_web_server(team: Team, change: dict[str, str], status: int) -> None:
    found = team.answer("day", headers=change)
    assert found.status_code == status
    assert found.headers["cache-control"] == "no-store"
    assert len(list(team.answers.every())) == (status == 201)


def test_what_changes_something_names_its_origin(team: Team) -> None:
    del team.client.headers["origin"]
    assert team.get("run/day/facts").status_code == 200
    assert team.answer("day").status_code == 403
    assert team.client.options("/review/run/day/answers").status_code == 403


def test_the_name_of_who_has_signed_in_counts(team: Team) -> None:
    team.answer("day", "a", {"x-kintsugi-user": "ana"}, who="somebody")
    team.answer("day", "b", {"x-kintsugi-user": ""}, who="Bo")
    team.answer("day", "c", who="Cyd")
    team.answer("day", "d", {b"x-kintsugi-user": "ä".encode()})
    assert [each.who for each in team.answers.every()] == ["ana", "Bo", "Cyd", "ä"]
    assert team.get("run/day/facts", headers={"x-kintsugi-user": "ana"}).json()["who"] == "ana"
    assert [run.answered for run in team.desks.runs() if run.name == "day"] == [1], "one image, four answers"


def test_a_request_without_a_length_is_no_way_to_fill_the_memory(team: Team) -> None:
    def parts():
        for _ in range(MOST_BYTES // 1024 + 2):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    found = team.client.post("/review/run/day/answers", content=parts(), headers=headers)
    assert (found.status_code, str(MOST_BYTES) in found.text) == (400, True)
    deep = b"[" * 60_000
    assert team.client.post("/review/run/day/answers", content=deep, headers=headers).status_code == 400


def test_few_runs_stay_open_and_one_that_was_scored_again_is_read_again(team: Team) -> None:
    first = team.desks.desk("day")
    assert team.desks.desk("day") is first
    os.utime(team.desks.folder / "day" / "run.json", ns=(1, 1))
    second = team.desks.desk("day")
    assert second is not first
    for name in HOSTILE[:MOST_OPEN]:
        team.desks.desk(name)
    assert team.desks.desk("day") is not second


def test_reports_are_rebuilt_of_runs_that_nobody_answers_about_any_more(team: Team) -> None:
    team.answer("day")
    assert team.desks.take_answered(quiet=60) == []
    assert team.desks.take_answered() == [team.desks.folder / "day"]
    assert team.desks.take_answered() == []


@pytest.mark.parametrize(
    "address",
    ["", "images", "ftp://images/review/", "http:///review/", "http://a:b/", "http://u@h/", "http://h/?q", "http://[/"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ReviewError, match="such as http://localhost:8000/review/"):
        team_door(address, SECRET)


@pytest.mark.parametrize("secret", [None, "", "short", "ä" * 30])
def test_without_a_good_secret_there_is_no_page_and_it_is_not_shown(secret: str | None) -> None:
    with pytest.raises(ReviewError, match="KINTSUGI_REVIEW_SECRET has") as error:
        team_door(URL, secret)
    assert not secret or secret not in str(error.value)


@pytest.mark.parametrize(
    ("address", "host", "path"),
    [
        ("https://Images.example/review/", "images.example", "/review"),
        ("https://images.example:443/", "images.example", ""),
        ("http://[::1]:8000/a/b", "[::1]:8000", "/a/b"),
    ],
)
def test_hosts_are_as_browsers_send_them(address: str, host: str, path: str) -> None:
    door = team_door(address, SECRET)
    assert (door.hosts, door.path) == ({host}, path)
    assert door.origins == {f"{address.partition(':')[0]}://{host}"}


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is no folder"):
        Desks(tmp_path / "nothing", Answers(tmp_path / "answers.sqlite3"))
