"""What `kintsugi review` refuses before it serves a page."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from flows.cli import app

BEHIND = ["--behind", "http://localhost:8000/review/"]


@pytest.mark.parametrize(
    ("options", "secret", "told"),
    [
        (["--address", "192.0.2.1"], "", "--address is '192.0.2.1' without --behind"),
        (BEHIND, "", "KINTSUGI_REVIEW_SECRET has 0 characters"),
        (BEHIND, "hunter2", "KINTSUGI_REVIEW_SECRET has 7 characters"),
        (["--behind", "localhost"], "x" * 30, "--behind is 'localhost': give the page's address"),
        ([*BEHIND, "--address", "nowhere.invalid"], "x" * 30, "nowhere.invalid cannot be used"),
    ],
)
def test_a_page_that_would_not_be_safe_is_refused(tmp_path, monkeypatch, options, secret, told):
    monkeypatch.setenv("KINTSUGI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KINTSUGI_REVIEW_SECRET", secret)
    (tmp_path / "reports").mkdir()
    done = CliRunner().invoke(app, ["review", str(tmp_path / "reports"), *options])
    assert done.exit_code == 2
    assert told in done.stderr
    assert "hunter2" not in done.output + done.stderr
