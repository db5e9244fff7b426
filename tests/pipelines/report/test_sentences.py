"""What a report says of a run, an image and files that were left out."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.anomaly.rate_claim import RateClaim
from pipelines.report import sentences
from pipelines.report.folder import Picture

NBSP = "\N{NO-BREAK SPACE}"
CROSS = RateClaim(kind="cross", folds=5)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (
            {"ok": 28, "failed": 2, "judged": 28, "flagged": 16, "rate": 0.01},
            f"16 of 28 images look abnormal at a promised false-alarm rate of 1{NBSP}%; 2 files failed",
        ),
        (
            {"ok": 28, "failed": 0, "judged": 28, "flagged": 1, "rate": 0.0625},
            f"1 of 28 images looks abnormal at a promised false-alarm rate of 6.25{NBSP}%",
        ),
        (
            {"ok": 1200, "failed": 1, "judged": 1200, "flagged": 0, "rate": None},
            "None of 1,200 images look abnormal; 1 file failed",
        ),
        (
            {"ok": 30, "failed": 0, "judged": 30, "flagged": 2, "rate": 0.01, "unpromised": 10},
            f"2 of 30 images look abnormal at a promised false-alarm rate of 1{NBSP}%; none is promised for 10 of them",
        ),
        (
            {"ok": 30, "failed": 0, "judged": 30, "flagged": 2, "rate": 0.01, "unpromised": 30},
            "2 of 30 images look abnormal, without a promise",
        ),
        (
            {"ok": 28, "failed": 0, "judged": 28, "flagged": 1, "rate": 0.0625, "claim": CROSS},
            f"1 of 28 images looks abnormal at a requested false-alarm rate of 6.25{NBSP}%",
        ),
        (
            {"ok": 30, "failed": 0, "judged": 30, "flagged": 2, "rate": 0.01, "unpromised": 10, "claim": CROSS},
            f"2 of 30 images look abnormal at a requested false-alarm rate of 1{NBSP}%; none is known for 10 of them",
        ),
        (
            {"ok": 30, "failed": 0, "judged": 30, "flagged": 2, "rate": 0.01, "unpromised": 30, "claim": CROSS},
            "2 of 30 images look abnormal, without a known false-alarm rate",
        ),
        ({"ok": 28, "failed": 0, "judged": 0, "flagged": 0, "rate": None}, "28 images scored, without verdicts"),
        ({"ok": 0, "failed": 3, "judged": 0, "flagged": 0, "rate": 0.01}, "No image could be scored: 3 files failed"),
    ],
)
def test_headline_says_the_verdict(counts: dict[str, Any], text: str) -> None:
    assert sentences.summarise_scores(**counts) == text


def test_headline_under_another_rule_promises_no_false_alarm_rate() -> None:
    rule = "at most the 5 worst images are flagged"
    text = sentences.summarise_scores(ok=40, failed=0, judged=40, flagged=5, rate=0.0625, rule=rule)
    assert text == "5 of 40 images look abnormal: at most the 5 worst images are flagged"


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "No single region stands out"), (1, "1 abnormal region covers 3.4\u00a0% of the image; it is 61 × 40 pixels")],
)
def test_regions_in_words(number: int, says: str) -> None:
    assert sentences.describe_regions(number, percent=3.41, size=(61, 40), centre=(1.0, 2.0)).startswith(says)


METADATA = {"aspects": {"gaussian": "in texture"}}


@pytest.mark.parametrize(
    ("facts", "metadata", "says"),
    [
        (
            {"place": "left", "expert": "gaussian", "expert_score": 11.0},
            METADATA,
            ["Most unusual at the left, in texture."],
        ),
        ({"expert": "gaussian", "expert_score": 11.0}, METADATA, ["Most unusual in texture."]),
        # It counts most by its weight: the others find the image about as unusual.
        ({"place": "left", "expert": "gaussian", "expert_score": 9.0}, METADATA, ["Most unusual at the left."]),
        ({"place": "left", "expert": "gaussian", "expert_score": 11.0}, {}, ["Most unusual at the left."]),
        ({"place": "left", "expert": "other", "expert_score": 11.0}, METADATA, ["Most unusual at the left."]),
        ({"expert": "gaussian", "expert_score": 11.0}, {"aspects": ["in texture"]}, []),
        ({"place": "left", "regions": 11}, METADATA, ["Most unusual in many places."]),
        ({}, METADATA, []),  # of an older model, or an older run
    ],
)
def test_what_an_image_is_flagged_for(facts: dict[str, Any], metadata: dict[str, Any], says: list[str]) -> None:
    picture = Picture(path="a.png", thumbnail=b"", score=8.0, **facts)
    assert sentences.describe_image(picture, None, metadata) == says


def test_a_place_in_words() -> None:
    assert sentences.describe_worst_place(0.000431, places=9999, beyond=False).endswith(
        "one place in 2,300 of good images."
    )


@pytest.mark.parametrize(
    ("count", "total", "says"),
    [
        (0, 3, ""),
        (2, 2, "Save the images that should be read as TIFF or PNG, and"),
        (1, 6, "1 of them may be an image: save the images that should be read as TIFF or PNG"),
        (3, 8, "3 of them may be images: save the images that should be read as TIFF or PNG"),
    ],
)
def test_advice_is_of_the_files_that_may_be_images(count: int, total: int, says: str) -> None:
    text = sentences.advise_left_out(count, total)
    assert text.startswith(says)
    assert bool(text) == bool(says)
