"""The page's server: who may use it, what it hands out, and what it keeps."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from pipelines.batch.schema import RESULTS
from pipelines.errors import FolderError, ReviewError
from pipelines.review.answers import Answers
from pipelines.review.desk import Desk
from pipelines.review.run import ReviewedRun
from pipelines.review.server import _listen, make_app

HOST, TOKEN = "127.0.0.1:8765", "secret"
HOSTILE = ["<img src=x onerror=alert(1)>.png", "a'\"&b.png", "..%2f..%2fetc.png", "line\nbreak.png"]
HEADERS = {"content-type": "application/json"}


class Page:
    """A browser's side of the page."""

    def __init__(self, out: Path, home: Path) -> None:
        self.answers = Answers(home / "answers.sqlite3")
        self.run = ReviewedRun(out)
        self.client = TestClient(make_app(Desk(self.run, self.answers), TOKEN, frozenset({HOST})), f"http://{HOST}")

    def get(self, address: str, **options: Any) -> Any:
        return self.client.get(f"/{TOKEN}{address}", **options)

    def ask(self, queue: str, person: str = "a") -> list[dict[str, Any]]:
        return self.get(f"/questions?queue={queue}&person={person}").json()

    def answer(self, number: int, verdict: str, queue: str = "teach", key: str | None = None, **more: object) -> Any:
        body = {"number": number, "verdict": verdict, "queue": queue, "key": key or f"{queue} {number} {verdict}"}
        return self.client.post(f"/{TOKEN}/answers", json=body | more)


@pytest.fixture
def page(make_run, tmp_path: Path) -> Page:
    return Page(make_run(tmp_path), tmp_path / "home")


def test_what_is_nearest_to_the_threshold_is_asked_first_flagged_or_not(page: Page) -> None:
    asked = page.ask("teach")
    assert [image["number"] for image in asked[:4]] == [0, 39, 10, 38]
    assert [image["flagged"] for image in asked[:4]] == [True, False, True, False]
    assert len({image["number"] for image in asked}) == 20


def test_two_people_are_asked_about_different_images_and_all_answers_count(page: Page) -> None:
    first, second = page.ask("teach", "a"), page.ask("teach", "b")
    assert not {image["number"] for image in first} & {image["number"] for image in second}
    for person, asked in (("Ana", first), ("Bo", second)):
        for image in asked:
            assert page.answer(image["number"], "good", who=person).status_code == 201
    assert len(page.answers.of_run(page.run.name, "teach")) == 40
    assert page.ask("teach", "c") == []
    assert page.get("/figures").json()["teach"] == {"answered": 40, "images": 40}


def test_an_answer_says_what_it_rests_on(page: Page) -> None:
    number = page.ask("audit")[0]["number"]
    page.answer(number, "defect", "audit", defect=" scratch ", place=[0.1, 0.2, 0.3, 0.4], who="Ana")
    (kept,) = page.answers.of_run(page.run.name)
    assert (kept.defect, kept.place, kept.who, kept.model, kept.version) == (
        "scratch", (0.1, 0.2, 0.3, 0.4), "Ana", "tiles", "3",
    )  # fmt: skip
    assert kept.sha256 == f"{number:064x}"
    assert kept.stratum is not None
    assert 0 < (kept.probability or 0) < 1
    assert page.get("/facts").json()["defects"] == ["scratch"]


def test_an_answer_that_is_sent_again_after_a_break_counts_once_and_can_be_taken_back(page: Page) -> None:
    number = page.ask("teach")[0]["number"]
    for _ in range(2):
        page.answer(number, "good", key="one")
    assert len(page.answers.of_run(page.run.name)) == 1
    found = page.client.post(f"/{TOKEN}/withdraw", json={"key": "one"}).json()
    assert found == {"withdrawn": True}
    assert page.answers.of_run(page.run.name) == []
    assert page.ask("teach")[0]["number"] == number


def test_what_an_audit_calls_defective_is_asked_about_once_more(page: Page) -> None:
    first = page.ask("audit")[0]["number"]
    page.answer(first, "defect", "audit")
    later = page.ask("audit")
    assert [image["number"] for image in later if image["again"]] == [first]
    page.answer(first, "good", "audit", key="again")
    assert not [image for image in page.ask("audit") if image["again"]]
    strata = page.run.count_strata(page.answers.of_run(page.run.name))
    assert (sum(each.answered for each in strata), sum(each.defects for each in strata)) == (1, 0)


def test_an_audit_of_every_image_knows_recall_and_precision(page: Page) -> None:
    truth = {number: number in (0, 10, 25) for number in range(40)}
    for number, bad in truth.items():
        page.answer(number, "defect" if bad else "good", "audit")
    audit = page.get("/figures").json()["audit"]
    assert audit["answered"] == 40
    assert audit["recall"] == pytest.approx({"value": 2 / 3, "low": 2 / 3, "high": 2 / 3})
    assert audit["precision"]["value"] == pytest.approx(2 / 4)


def test_pictures_are_there_and_a_map_only_of_what_was_flagged(page: Page) -> None:
    assert page.get("/picture/0/image").headers["content-type"] == "image/jpeg"
    assert page.get("/picture/0/map").headers["content-type"] == "image/png"
    assert page.get("/picture/1/map").status_code == 404
    assert page.get("/picture/40/image").status_code == 404  # its file failed
    assert page.get("/picture/99/image").status_code == 404
    (page.run.folder / "001.png").unlink()
    assert page.get("/picture/1/image").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://{HOST}"}, 200),
    ],
)
def test_other_names_and_origins_are_refused(page: Page, headers: dict[str, str], status: int) -> None:
    response = page.get("/facts", headers=headers)
    assert response.status_code == status
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "address", ["/", "/facts", "/picture/0/image", "/wrong/facts", "/secretfacts", "/assets/review.js"]
)
def test_without_the_token_there_is_nothing(page: Page, address: str) -> None:
    assert page.client.get(address).status_code == 404


@pytest.mark.parametrize(
    "name", ["../server.py", "..%2fserver.py", "review.html", "%2e%2e/server.py", "review.js%00.png"]
)
def test_no_path_leads_out_of_the_page(page: Page, name: str) -> None:
    assert page.get(f"/assets/{name}").status_code in (404, 405)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"number": 0, "verdict": "good", "queue": "teach", "key": "k"}', "text/plain"),
        (b'{"number": 0, "verdict": "perhaps", "queue": "teach", "key": "k"}', "application/json"),
        (b'{"number": 0, "verdict": "good", "queue": "restore", "key": "k"}', "application/json"),
        (b'{"number": -1, "verdict": "good", "queue": "teach", "key": "k"}', "application/json"),
        (b'{"number": 0, "verdict": "good", "queue": "teach", "key": "k", "who": 3}', "application/json"),
        (b'{"number": 0, "verdict": "good", "queue": "teach", "key": "k", "place": [1, 2]}', "application/json"),
    ],
)
def test_what_is_no_answer_is_refused_and_nothing_is_kept(page: Page, content: bytes, kind: str) -> None:
    response = page.client.post(f"/{TOKEN}/answers", content=content, headers={"content-type": kind})
    assert response.status_code == 400
    assert page.answers.of_run(page.run.name) == []


def test_a_request_that_is_too_large_is_refused(page: Page) -> None:
    assert page.client.post(f"/{TOKEN}/answers", content=b" " * 70_000, headers=HEADERS).status_code == 413


def test_hostile_names_are_data(make_run, tmp_path: Path) -> None:
    page = Page(make_run(tmp_path, names=HOSTILE), tmp_path / "home")
    asked = page.ask("teach")
    assert {image["path"] for image in asked} == set(HOSTILE)
    for image in asked:
        assert page.get(f"/picture/{image['number']}/image").status_code == 200


def test_a_row_that_names_a_file_elsewhere_shows_none(make_run, tmp_path: Path) -> None:
    out = make_run(tmp_path)
    (tmp_path / "outside.png").write_bytes((tmp_path / "images" / "000.png").read_bytes())
    table = pq.read_table(out / "results.parquet").to_pylist()
    table[0]["path"], table[1]["path"] = "../outside.png", str(tmp_path / "outside.png")
    pq.write_table(pa.Table.from_pylist(table, schema=RESULTS), out / "results.parquet")
    page = Page(out, tmp_path / "home")
    assert [page.get(f"/picture/{number}/image").status_code for number in (0, 1, 2)] == [404, 404, 200]


def test_restored_images_are_compared_the_least_sure_first(make_run, tmp_path: Path) -> None:
    page = Page(make_run(tmp_path, verb="restore"), tmp_path / "home")
    assert page.run.queues == ("restore",)
    assert [image["number"] for image in page.ask("restore")[:3]] == [39, 38, 37]
    assert page.answer(39, "better", "restore").status_code == 201
    assert page.answer(38, "good", "restore").status_code == 400


def test_a_folder_that_no_run_finished_is_refused(make_run, tmp_path: Path) -> None:
    out = make_run(tmp_path)
    (out / "run.json").write_text(json.dumps({"verb": "score", "folder": "x"}))
    with pytest.raises(FolderError, match="finished run"):
        ReviewedRun(out)


def test_the_order_of_an_audit_is_the_same_for_everybody_and_was_settled_before(page: Page) -> None:
    before = page.run.order("audit").tolist()
    for image in page.ask("teach"):
        page.answer(image["number"], "good")
    assert ReviewedRun(page.run.out).order("audit").tolist() == before
    assert sorted(before) == list(np.arange(40))


class Counted(list):  # type: ignore[type-arg]
    """A column that counts how many of its values are looked at."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        Counted.looks += 1
        return super().__getitem__(place)


def test_questions_and_figures_look_at_what_was_answered_and_not_at_all_rows(make_run, tmp_path: Path) -> None:
    """A hundred thousand rows take no longer than a hundred."""
    out = make_run(tmp_path)
    rows = pq.read_table(out / "results.parquet").to_pylist()
    more = [rows[1] | {"sha256": f"{number:064x}", "score": number / 20_000} for number in range(1000, 21_000)]
    pq.write_table(pa.Table.from_pylist(rows + more, schema=RESULTS), out / "results.parquet")
    page = Page(out, tmp_path / "home")
    for queue in ("teach", "audit"):
        assert len(page.ask(queue)) == 20  # the orders are drawn once
    page.run._columns = {name: Counted(values) for name, values in page.run._columns.items()}
    for image in page.ask("audit"):
        assert page.answer(image["number"], "defect", "audit").status_code == 201
    page.ask("audit")
    assert page.get("/figures").json()["audit"]["answered"] == 20
    assert 0 < Counted.looks < 2_000


def test_responses_are_sent_at_once() -> None:
    """Of a socket that names no protocol, asyncio leaves Nagle's algorithm on, and responses come 40 ms late."""
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        with pytest.raises(ReviewError, match="give another with --port"):
            _listen("127.0.0.1", listening.getsockname()[1])
    with pytest.raises(ReviewError, match="give another address"):
        _listen("nowhere.invalid", 0)
