"""The review page for a team: behind nginx with its password, with the settings of docker/ and docker-compose.yml."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.batch.schema import RESULTS

from .processes import Process, free_ports, listens, wait_for
from .web_server import start_nginx

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PASSWORD, SECRET = "correct-horse_1", "battery-staple-battery-staple"
PEOPLE = {"ana": "correct-horse_2", "bo": "correct-horse_3"}
RUN = "2026-12-02T06-00-00Z-score-inbox"
IMAGES = 60


def write_run(folder: Path, images: Path) -> None:
    """A finished run over real files; every tenth is flagged."""
    images.mkdir()
    folder.mkdir(parents=True)
    rows = []
    for number in range(IMAGES):
        Image.new("RGB", (40, 30), (4 * number, 80, 90)).save(images / f"{number:03}.png")
        known = {"path": f"{number:03}.png", "sha256": f"{number:064x}", "status": "ok", "threshold": 2.0}
        rows.append(known | {"score": float(3 * (number % 10 == 0)), "is_anomaly": number % 10 == 0})
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), folder / "results.parquet")
    model = {"name": "tiles", "version": "3", "sha256": "0" * 64}
    run = {"verb": "score", "folder": str(images), "model": model, "started": "2026-12-02", "finished": "2026-12-02"}
    (folder / "run.json").write_text(json.dumps(run))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Both servers: the review page with the command of docker-compose.yml, and nginx before it."""
    folder, (port, inside) = tmp_path_factory.mktemp("team"), free_ports(2)
    write_run(folder / "reports" / RUN, folder / "images")
    address = f"http://127.0.0.1:{port}/review/"
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["review"]["command"]
    there = {"/data/reports": folder / "reports", "${REVIEW_URL-}": address, "8765": inside}
    there["0.0.0.0"] = "127.0.0.1"  # noqa: S104 - of the container
    assert there.keys() <= set(command)
    environment = {
        "HOME": str(folder), "PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1", "KINTSUGI_HOME": str(folder / "home"), "KINTSUGI_REVIEW_SECRET": SECRET,
    }  # fmt: skip
    review = Process(
        "review", [str(there.get(word, word)) for word in command], environment, folder / "review.log",
        lambda: listens(inside), folder,
    )  # fmt: skip
    review.start()
    nginx = start_nginx(
        folder, folder / "reports", port=port, password=PASSWORD, secret=SECRET,
        review_port=inside, people=PEOPLE,
    )  # fmt: skip
    try:
        review.expect_ready()
        yield SimpleNamespace(
            url=address, origin=f"http://127.0.0.1:{port}", inside=f"http://127.0.0.1:{inside}/review/",
            page=f"{address}run/{RUN}/", folder=folder, home=folder / "home", review=review,
        )  # fmt: skip
    finally:
        nginx.kill()
        review.kill()


def signed_in(team: SimpleNamespace, name: str = "reports", password: str = PASSWORD) -> httpx.Client:
    return httpx.Client(auth=(name, password), headers={"origin": team.origin}, timeout=30)


def rows(team: SimpleNamespace) -> list[tuple[Any, ...]]:
    with sqlite3.connect(team.home / "answers.sqlite3") as database:
        return database.execute("SELECT sha256, who, verdict, key FROM answers").fetchall()


def test_the_page_and_its_images_need_the_password(team: SimpleNamespace) -> None:
    for path in ("", f"run/{RUN}/", f"run/{RUN}/picture/0/image", f"run/{RUN}/answers", "assets/review.css", "nothing"):
        assert httpx.get(team.url + path).status_code == 401
        assert httpx.get(team.url + path, auth=("reports", "wrong")).status_code == 401
    with signed_in(team) as client:
        listed = client.get(team.url)
        assert f'href="run/{RUN}/"' in listed.text
        assert "default-src 'none'" in listed.headers["content-security-policy"]
        assert listed.headers.get_list("cache-control") == ["no-store"]
        page = client.get(team.page)
        assert (page.status_code, "review.js" in page.text) == (200, True)
        assert client.get(f"{team.page}assets/review.js").status_code == 200
        assert client.get(f"{team.page}picture/0/image").headers["content-type"] == "image/jpeg"


def test_people_answer_at_once_under_their_names_and_no_answer_is_lost(team: SimpleNamespace) -> None:
    def answer(name: str) -> list[str]:
        kept = []
        with signed_in(team, name, PEOPLE[name]) as client:
            assert client.get(f"{team.page}facts").json()["who"] == name
            while asked := client.get(f"{team.page}questions?queue=teach&person={name}").json():
                for image in asked:
                    key = f"{name} {image['number']}"
                    body = {"number": image["number"], "queue": "teach", "verdict": "good", "key": key, "who": "me"}
                    assert client.post(f"{team.page}answers", json=body).status_code == 201
                    kept.append(key)
        return kept

    with ThreadPoolExecutor() as pool:
        kept = [key for keys in pool.map(answer, PEOPLE) for key in keys]
    found = rows(team)
    assert sorted(key for *_, key in found) == sorted(kept)
    assert len({sha256 for sha256, *_ in found}) == len(kept) == IMAGES, "nobody was asked what somebody else has"
    assert {who for _, who, *_ in found} == set(PEOPLE)


def test_of_the_account_of_all_the_page_asks_for_a_name(team: SimpleNamespace) -> None:
    with signed_in(team) as client:
        assert client.get(f"{team.page}facts").json()["who"] is None
        body = {"number": 0, "queue": "audit", "verdict": "good", "key": "shared", "who": "Cyd"}
        headers = {"x-kintsugi-user": "ana", "x-kintsugi-secret": "guess"}  # nginx puts its own in their places
        assert client.post(f"{team.page}answers", json=body, headers=headers).status_code == 201
    assert [who for _, who, _, key in rows(team) if key == "shared"] == ["Cyd"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
def test_another_origin_keeps_no_answer(team: SimpleNamespace, origin: str | None) -> None:
    body = {"number": 1, "queue": "audit", "verdict": "good", "key": "forged"}
    headers = {} if origin is None else {"origin": origin}
    found = httpx.post(f"{team.page}answers", json=body, auth=("reports", PASSWORD), headers=headers)
    assert found.status_code == 403
    found = httpx.get(team.page, auth=("reports", PASSWORD), headers={"host": "evil.example"})
    assert found.status_code == 403
    assert "forged" not in {key for *_, key in rows(team)}


@pytest.mark.parametrize("secret", [None, "guess", SECRET[:-1], SECRET + "x", "ä"])
def test_who_goes_around_the_web_server_is_refused(team: SimpleNamespace, secret: str | None) -> None:
    headers = {b"host": team.origin.removeprefix("http://").encode(), b"origin": team.origin.encode()}
    headers |= {} if secret is None else {b"x-kintsugi-secret": secret.encode()}
    body = {"number": 1, "queue": "audit", "verdict": "good", "key": "around"}
    for path in ("", f"run/{RUN}/", f"run/{RUN}/picture/0/image"):
        assert httpx.get(team.inside + path, headers=headers).status_code == 403
    assert httpx.post(f"{team.inside}run/{RUN}/answers", json=body, headers=headers).status_code == 403
    assert httpx.get(team.inside.replace("/review/", "/healthz")).status_code == 204, "the container's check"
    assert "around" not in {key for *_, key in rows(team)}


@pytest.mark.parametrize(
    "path", ["run/..%2f..%2fhome/", "run/..%2f/facts", "run/.kintsugi-run/", "run/%2e%2e/facts", "run/x/"]
)
def test_no_address_leads_out_of_the_runs(team: SimpleNamespace, path: str) -> None:
    with signed_in(team) as client:
        assert client.get(team.url + path).status_code in (400, 404)


def test_the_password_and_the_secret_stay_where_they_are(team: SimpleNamespace) -> None:
    for log in ("review.log", "access.log", "error.log"):
        text = (team.folder / log).read_text()
        assert not {word for word in (PASSWORD, SECRET, *PEOPLE.values()) if word in text}, log


def test_the_page_ends_when_it_is_asked_to_and_reports_show_the_answers(team: SimpleNamespace) -> None:
    report = team.folder / "reports" / RUN / "report.html"
    assert not report.exists()
    team.review.signal(signal.SIGTERM)
    wait_for(report.exists, "the report is rebuilt", 60, team.review.tail)
    assert json.loads((report.parent / "review.json").read_text())["queues"]["teach"] == {"good": IMAGES}
    with signed_in(team) as client:
        assert client.get(team.page).status_code == 503
