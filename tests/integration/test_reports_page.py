"""The web server of the report folder: nginx of the system's package, with the settings of docker/."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from .processes import free_ports
from .web_server import start_nginx

PASSWORD = "correct-horse_1"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """It serves a folder with a report, what a run keeps for itself, and a name that is a trap."""
    folder, (port, nobody) = tmp_path_factory.mktemp("nginx"), free_ports(2)
    reports = folder / "reports"
    run = reports / "2026-11-22T06-00-00Z-score-inbox"
    (run / ".kintsugi-run").mkdir(parents=True)
    (run / "report.html").write_text("<p>äöü</p>")
    (run / ".kintsugi-run" / "lock").write_text("nobody's business")
    (reports / "<script>alert(1)<").mkdir()
    (folder / "outside").write_text("secret")
    process = start_nginx(folder, reports, port=port, password=PASSWORD, secret="", review_port=nobody)

    def get(path: str, password: str | None = PASSWORD) -> httpx.Response:
        auth = ("reports", password) if password is not None else None
        return httpx.get(f"http://127.0.0.1:{port}{path}", auth=auth)

    yield SimpleNamespace(get=get, port=port, folder=folder, report=f"/{run.name}/report.html")
    process.kill()


@pytest.mark.integration
def test_reports_need_the_password(pages: SimpleNamespace) -> None:
    for path in ("/", pages.report, "/nothing"):
        assert pages.get(path, None).status_code == 401
        assert pages.get(path, "wrong").status_code == 401
    found = pages.get(pages.report)
    assert (found.status_code, found.text) == (200, "<p>äöü</p>")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert pages.get("/healthz", None).status_code == 204
    assert PASSWORD not in (pages.folder / "access.log").read_text()


@pytest.mark.integration
def test_what_runs_keep_for_themselves_is_not_shown(pages: SimpleNamespace) -> None:
    run = pages.report.rpartition("/")[0]
    assert pages.get(f"{run}/.kintsugi-run/lock").status_code == 404
    assert ".kintsugi-run" not in pages.get(f"{run}/").text
    assert "report.html" in pages.get(f"{run}/").text
    assert pages.get("/../outside").status_code in {400, 404}
    assert pages.get("/%2e%2e/outside").status_code in {400, 404}


@pytest.mark.integration
def test_nobody_writes_and_names_are_text(pages: SimpleNamespace) -> None:
    auth = ("reports", PASSWORD)
    for method in ("PUT", "DELETE", "POST", "MKCOL"):
        found = httpx.request(method, f"http://127.0.0.1:{pages.port}{pages.report}", auth=auth)
        assert found.status_code in {400, 405}
    assert "<script>" not in pages.get("/").text


@pytest.mark.integration
def test_without_the_review_page_the_server_works_and_names_the_reason(pages: SimpleNamespace) -> None:
    assert pages.get("/review/", None).status_code == 401
    found = pages.get("/review/")
    assert found.status_code == 503
    assert "The review page is not there" in found.text
    assert pages.get("/review").headers["location"] == "/review/"
    assert pages.get(pages.report.rpartition("/")[0]).headers["location"] == pages.report.rpartition("/")[0] + "/"
