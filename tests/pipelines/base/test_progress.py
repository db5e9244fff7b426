"""Lines of progress: how fast, and how long still, of quick and of slow work."""

from __future__ import annotations

import io
import logging

import pytest

from pipelines.base import progress


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (2.5, "work: 4 of 10 images, 2.5 s each, 15 s left"),
        (60.0, "work: 1 of 10 images, 60.0 s each, 9 min left"),
        (0.25, "work: 10 of 10 images, 4.0 images/s, 0 s left"),
    ],
)
def test_lines_tell_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float, says: str
) -> None:
    caplog.set_level("INFO")
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", min(10.0, 10 * seconds))
    with progress.progress(logging.getLogger("pipelines.test"), "work", 10, "images") as advance:
        for _ in range(10):
            now[0] += seconds
            advance()
    assert caplog.messages[0] == says


def test_work_that_was_done_before_does_not_make_it_look_faster(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress(logging.getLogger("pipelines.test"), "work", 100, "images", done=90) as advance:
        now[0] = 20.0
        advance(2, "note")
    assert caplog.messages == ["work: 92 of 100 images, 10.0 s each, 80 s left, note"]


def test_a_program_that_was_started_without_stderr_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with progress.progress(logging.getLogger("test"), "score", 1, "images") as advance:
        advance()


def test_no_bar_is_drawn_where_lines_are_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("KINTSUGI_LOG", "json")
    with progress.progress(logging.getLogger("test"), "score", 1, "images") as advance:
        advance()
    assert terminal.getvalue() == ""
