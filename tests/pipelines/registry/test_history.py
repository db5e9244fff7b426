"""A model's history in words: no key of ours, every figure with its unit."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime

import pytest

from pipelines.registry import history
from pipelines.registry.records import TrailEntry, Version

WHEN = datetime(2026, 11, 21, 5, 19, tzinfo=UTC)
FIGURES = {
    "challenger_promised_rate": 1 / 19,
    "challenger_false_alarm_rate": 1 / 7,
    "challenger_false_alarm_limit": 3 / 7,
    "challenger_synthetic_auroc": 0.98765,
    "champion_synthetic_auroc": 0.5,
    "images": 7.0,
    "steps": 1500.0,
    "seconds": 605.0,
    "parity": 1.07e-7,
}


def test_a_rate_that_was_asked_is_told_apart_from_a_promised_one() -> None:
    assert history.figures_in_words({"challenger_assumed_false_alarm_limit": 0.04, "challenger_asked_rate": 0.01}) == [
        ("false alarms asked", "1 % of good images; not proved"),
        (
            "by chance alone",
            "up to 4 % of the good test images, if the calibration scores were those of the deployed model",
        ),
    ]


def test_a_version_is_told_in_words_and_units() -> None:
    version = Version(
        name="tiles", version=3, aliases=("champion",), sha256="ab" * 32, run_id=None, created=WHEN, metrics=FIGURES,
        tags={"data_digest": "cd" * 32, "task": "reconstruct"}, summary="Learn what is normal.",
    )  # fmt: skip
    head, summary, *facts = history.describe_version(version)
    assert (head, summary) == ("tiles/3 [champion]  2026-11-21 05:19 UTC", "    Learn what is normal.")
    assert [" ".join(fact.split()) for fact in facts] == [
        "promised false alarms at most 5.27 % of good images, on average",
        "false alarms in the test 14 % of the good test images",
        "by chance alone up to 43 % of the good test images",
        "synthetic defects a damaged image scores above a good one in 98.8 % of pairs (guessing: 50 %)",
        "test images 7 good ones that were not trained on, and damaged copies of them",
        "training 1500 steps",
        "training time 10 min",
        "exported file scores within 0.000011 % of the trained network's",
        "champion then: synthetic defects a damaged image scores above a good one in 50 % of pairs (guessing: 50 %)",
        "training images fingerprint of their contents cdcdcdcdcdcdcdcd...",
        "model file sha256 abababababababab...",
    ]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("train.adversarial", "0.3", "sharp before faithful"), ("data.degraded", '"noisy"', "clean twins never seen")],
)
def test_what_changes_the_meaning_of_figures_is_told(key: str, value: str, says: str) -> None:
    def told(given: str) -> str:
        tags = {"job": f'{{"{key}": {given}}}'}
        version = Version(
            name="x", version=1, aliases=(), sha256="", run_id=None, created=WHEN, metrics={}, tags=tags, summary=""
        )
        return "\n".join(history.describe_version(version))

    assert says in told(value)
    assert says not in told("null")


def test_two_versions_side_by_side() -> None:
    def version(number: int, job: str, digest: str, **figures: float) -> Version:
        return Version(
            name="tiles", version=number, aliases=(), sha256="ab" * 32, run_id=None, created=WHEN,
            metrics=figures | {"steps": 1500.0, "champion_psnr": 1.0}, summary="",
            tags={"data_digest": digest, "job": job, "parent": "tiles/1"},
        )  # fmt: skip

    one = version(2, '{"model.target": null, "train.seed": 0}', "cd" * 32, challenger_psnr=30.0)
    other = version(10, '{"model.target": "pixels", "train.seed": 0}', "cd" * 32, challenger_psnr=31.5)
    told = list(history.describe_comparison(one, other))
    assert "training: 1500 steps" in told
    assert "champion then: tiles/1" in told
    assert "training images: fingerprint of their contents cdcdcdcdcdcdcdcd..." in told
    start = told.index("job: model.target")
    assert told[start + 1 : start + 3] == ["    tiles/2   by default", "    tiles/10  pixels"]
    assert "    tiles/2   PSNR 30.00 dB on held-out images, damaged as in training" in told
    assert not [line for line in told if "train.seed" in line or "1.00 dB" in line]


@pytest.mark.parametrize(
    ("action", "before", "reason", "says"),
    [
        ("promote", None, "better", "version 3 became champion, by me: better"),
        ("promote", 1, "better", "version 3 became champion in place of version 1, by me: better"),
        ("rollback", 4, "", "version 3 is champion again in place of version 4, by me"),
        ("challenge", None, "", "version 3 became challenger, by me"),
    ],
)
def test_a_move_is_a_sentence(action: str, before: int | None, reason: str, says: str) -> None:
    entry = TrailEntry(WHEN, action, before, 3, "me", reason, {})
    assert history.describe_move(entry) == f"    2026-11-21 05:19 UTC  {says}"


def test_examples_in_the_documentation() -> None:
    result = doctest.testmod(history)
    assert (result.failed, result.attempted) == (0, 1)
