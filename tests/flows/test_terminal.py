"""What a command prints on stderr: each line once, and each message in one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import typer

from flows.terminal import told_plainly
from pipelines.errors import DataError

log = logging.getLogger("pipelines.somewhere")


@pytest.fixture
def as_under_prefect() -> Iterator[None]:
    """A handler of all logs, such as Prefect sets up when it is imported."""
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("as_under_prefect")
def test_each_warning_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with told_plainly():
        for _ in range(3):  # a demo trains, scores and evaluates on the same images
            log.warning("Drift was not checked for %d images", 28)
            log.info("progress")
        log.warning("Drift was not checked for %d images", 12)
    told = capsys.readouterr().err.splitlines()
    assert told.count("warning: Drift was not checked for 28 images") == 1
    assert told.count("warning: Drift was not checked for 12 images") == 1
    assert told.count("progress") == 3
    assert len(told) == 5


@pytest.mark.usefixtures("as_under_prefect")
def test_the_next_command_prints_it_again_and_what_runs_for_days_does(capsys: pytest.CaptureFixture[str]) -> None:
    for repeats in (False, False, True):
        with told_plainly(repeats=repeats):
            log.warning("again")
            log.warning("again")
    assert capsys.readouterr().err.splitlines() == ["warning: again"] * 4
    assert not logging.getLogger("pipelines").handlers
    assert logging.getLogger("pipelines").propagate


def test_a_message_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with told_plainly():
            log.warning("word " * 100)
            raise DataError("why " * 100)

    with pytest.raises(typer.Exit):
        fail()
    warning, error = capsys.readouterr().err.splitlines()  # whoever collects lines has each message whole
    assert warning.split() == ["warning:", *["word"] * 100]
    assert error.split() == ["error:", *["why"] * 100]
