"""Scores from a file: the form, the images that they are of, and the way there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from pipelines.bench.given_scores import GivenScores, read_given_scores, write_scores
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError, JobError
from pipelines.images import find_images

PATHS = [file.relative for file in find_images(MAGNETIC_TILE / "test")]
SCORES = {path: float(index % 7) for index, path in enumerate(PATHS)}


def given(folder: Path, document: Any, name: str = "before") -> GivenScores:
    (folder / "scores.json").write_text(json.dumps(document), encoding="utf-8")
    return read_given_scores([f"{name}={folder / 'scores.json'}"])[0]


def test_figures_are_those_of_the_scores(tmp_path: Path) -> None:
    row = given(tmp_path, {"tiles": SCORES})
    row.check_images("tiles", MAGNETIC_TILE)
    (result,) = row.results("tiles")
    wanted = roc_auc_score([not path.startswith("good/") for path in PATHS], list(SCORES.values()))
    assert result["figures"]["image_auroc"] == pytest.approx(wanted)
    assert result["figures"]["aupro"] is None
    assert (result["method"], result["scores"], result["calibration"]) == ("before", SCORES, None)


def test_what_a_benchmark_writes_is_what_it_reads(tmp_path: Path) -> None:
    seeds = [SCORES, {path: -score for path, score in SCORES.items()}]
    write_scores(tmp_path, {"tiles": {"ours": seeds, "failed": []}, "rail": {"ours": [SCORES]}})
    assert [path.name for path in tmp_path.iterdir()] == ["scores-ours.json"]
    (row,) = read_given_scores([f"before={tmp_path / 'scores-ours.json'}"])
    assert [(each["seed"], each["scores"]) for each in row.results("tiles")] == list(enumerate(seeds))
    assert [each["scores"] for each in row.results("rail")] == [SCORES]


def test_scores_of_other_images_are_refused(tmp_path: Path) -> None:
    few = {path: score for path, score in SCORES.items() if path != PATHS[3]}
    with pytest.raises(DataError, match=rf"lacks 1 of the {len(PATHS)} test images of .*{PATHS[3]}"):
        given(tmp_path, {"tiles": few}).check_images("tiles", MAGNETIC_TILE)
    with pytest.raises(DataError, match=r"has 1 images that are not among .*good/other\.png"):
        given(tmp_path, {"tiles": SCORES | {"good/other.png": 1.0}}).check_images("tiles", MAGNETIC_TILE)
    with pytest.raises(DataError, match=r"has no scores of rail: its data sets are tiles"):
        given(tmp_path, {"tiles": SCORES}).check_images("rail", MAGNETIC_TILE)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"tiles": [1.0]},
        {"tiles": {}},
        {"tiles": {"good/1.png": "high"}},
        {"tiles": {"good/1.png": float("nan")}},
        {"tiles": {"good/1.png": True}},
        {"tiles": {"good/1.png": []}},
        {"tiles": {"good/1.png": [1.0, 2.0], "good/2.png": [1.0]}},
    ],
)
def test_another_form_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(DataError, match=r"is not of the form"):
        given(tmp_path, document)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text("{", encoding="utf-8")
    for name in ("cut.json", "gone.json"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as scores"):
            read_given_scores([f"before={tmp_path / name}"])


@pytest.mark.parametrize("option", ["before", "=scores.json", "before=", " = "])
def test_a_name_and_a_file_are_needed(option: str) -> None:
    with pytest.raises(JobError, match=r"give a name and a file"):
        read_given_scores([option])


def test_names_of_rows_differ(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"another row is named 'padim_16'"):
        given(tmp_path, {"tiles": SCORES}, name="padim_16")
    option = f"before={tmp_path / 'scores.json'}"
    with pytest.raises(JobError, match=r"another row is named 'before'"):
        read_given_scores([option, option])
