"""Warnings that are kept for the card."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.base.warned import keep_warnings, kept_warnings
from pipelines.training import model_card


def test_warnings_are_kept_once_and_for_as_long_as_they_are_asked_for() -> None:
    log = logging.getLogger("pipelines.data.pieces")
    log.warning("before")
    with keep_warnings():
        log.info("no warning")
        log.warning("%d of %d", 1, 2)
        log.warning("1 of 2")
        logging.getLogger("elsewhere").warning("of others")
        assert kept_warnings() == ("1 of 2",)
    log.warning("after")
    assert kept_warnings() == ()


def test_the_card_of_a_model_lists_them(tmp_path: Path) -> None:
    with keep_warnings():
        logging.getLogger("pipelines.train").warning("6 of 28 images\u202e look alike")
        text = model_card._written(tmp_path, ["# tiles", ""])
    assert text == (tmp_path / "card.md").read_text("utf-8")
    assert text.splitlines()[2:] == ["## Warnings of the training", "", "- 6 of 28 images\\u202e look alike"]
