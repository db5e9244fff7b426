"""Thresholds by group: each group that can has the promise for itself, and every other image is judged by all."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import score
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.figures_of_merit import PixelFigures
from pipelines.anomaly.group_thresholds import GroupThresholds, group_of
from pipelines.anomaly.verdicts import Verdicts
from pipelines.batch.options import ScoreOptions
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import CalibrationError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.anomalies import measure_scores
from pipelines.images import find_images
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.rebuild import rebuild_report
from pipelines.score import score_folder
from pipelines.training.calibrate import calibrate

ODD = ["", " ", "caf\\xe9", "__proto__", "a\nb", "\u202egnp", "камера", "=1+1", "<b>", "a'b\"c", "50 %"]


def calibration_of(groups: dict[str, Any]) -> Calibration:
    scores = tuple(float(score) for group in groups.values() for score in group)
    grouped = {name: tuple(map(float, group)) for name, group in groups.items()}
    return Calibration(model_sha256="", scores=scores, map_quantiles={}, groups=grouped)


def rows_of(scores: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"path": f"{name}/{i}.png" if name else f"{i}.png", "status": "ok", "score": float(value)}
        for name, values in scores.items()
        for i, value in enumerate(values)
    ]
    return [*rows, {"path": "dark/broken.png", "status": "failed", "score": None}]


def filled(verdicts: Verdicts, scores: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    rows = rows_of(scores)
    verdicts.settle(None).fill(rows)
    assert (rows[-1]["is_anomaly"], rows[-1]["group"]) == (None, None)
    return {name: [row for row in rows[:-1] if group_of(row["path"]) == name] for name in scores}


def test_the_promise_is_kept_in_each_group_and_not_by_one_threshold_for_all() -> None:
    generator = np.random.default_rng(0)
    draw = {"dark": lambda n: generator.normal(0, 1, n), "bright": lambda n: generator.normal(4, 2, n)}
    rates: dict[bool, dict[str, list[float]]] = {True: {"dark": [], "bright": []}, False: {"dark": [], "bright": []}}
    for _ in range(200):
        calibration = calibration_of({name: make(99) for name, make in draw.items()})
        tested = {name: make(200) for name, make in draw.items()}
        for grouped, kept in rates.items():
            found = filled(Verdicts.of(calibration, 0.05, groups=grouped), tested)
            for name, rows in found.items():
                kept[name].append(np.mean([row["is_anomaly"] for row in rows]))
    for name in draw:
        assert np.mean(rates[True][name]) == pytest.approx(0.05, abs=0.006)
    assert np.mean(rates[False]["dark"]) < 0.001
    assert np.mean(rates[False]["bright"]) > 0.08


def test_p_value_threshold_and_verdict_are_of_one_calibration() -> None:
    generator = np.random.default_rng(1)
    calibration = calibration_of({"dark": generator.normal(0, 1, 40), "bright": generator.normal(3, 1, 60)})
    verdicts = Verdicts.of(calibration, 0.03, groups=True)
    found = filled(verdicts, {"dark": generator.normal(1, 2, 50), "bright": generator.normal(3, 2, 50)})
    for name, rows in found.items():
        own = calibration.of_group(name)
        assert own is not None
        for row in rows:
            assert row["group"] == name
            assert row["threshold"] == own.threshold(0.03)
            assert row["p_value"] == own.p_values(np.array([row["score"]]))[0]
            assert row["is_anomaly"] == (row["p_value"] <= 0.03) == verdicts.is_flagged(row["path"], row["score"])
            assert row["promised"]


def test_small_groups_are_one_more_group_so_that_the_promise_over_all_images_is_kept() -> None:
    """By all calibration images, the small groups alone would use up what is promised for all."""
    generator = np.random.default_rng(2)
    names = {"large": 99, "a": 12, "b": 12}
    draw = {name: (lambda n, at=0.0 if name == "large" else 3.0: generator.normal(at, 1, n)) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(300):
        calibration = calibration_of({name: draw[name](n) for name, n in names.items()})
        found = filled(Verdicts.of(calibration, 0.05, groups=True), {name: draw[name](100) for name in names})
        for name, rows in found.items():
            rates[name].append(np.mean([row["is_anomaly"] for row in rows]))
    for name in names:
        assert np.mean(rates[name]) == pytest.approx(0.05 if name == "large" else 0.04, abs=0.012), name


def test_verdicts_of_small_groups_are_of_their_pooled_calibration() -> None:
    calibration = calibration_of({"large": np.arange(50.0), "a": np.arange(100.0, 110), "b": np.arange(110.0, 120)})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    pooled = calibration.of_groups(["a", "b"])
    assert pooled is not None
    assert verdicts.threshold == pooled.threshold(0.05) == 119.0
    for row in (filled(verdicts, {name: [118.5]})[name][0] for name in ("a", "b")):
        assert (row["group"], row["threshold"], row["is_anomaly"], row["promised"]) == (None, 119.0, False, True)
        assert row["p_value"] == pooled.p_values(np.array([118.5]))[0]
    assert verdicts.groups is not None
    assert list(verdicts.groups.warn_of_unrepresented(["a/1.png", "b/1.png"])) == []


def test_a_group_that_calibration_never_saw_has_a_verdict_and_no_promise() -> None:
    """The calibration images of small groups say nothing of it: by their rule the pooled rate would be claimed."""
    calibration = calibration_of({"large": np.arange(50.0), "a": np.arange(100.0, 110), "b": np.arange(110.0, 120)})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    (row,) = filled(verdicts, {"unknown": [118.5]})["unknown"]
    assert calibration.threshold(0.05) == 117.0
    assert (row["group"], row["threshold"], row["is_anomaly"]) == (None, 117.0, True)
    assert (row["promised"], row["p_value"]) == (False, None)
    assert verdicts.is_flagged("unknown/1.png", 118.5)
    assert verdicts.groups is not None
    (warning,) = verdicts.groups.warn_of_unrepresented(["a/1.png", "unknown/1.png", "unknown/2.png"])
    assert warning == (
        "2 images lie in sub-folders that the model was not calibrated on, so no false-alarm rate is promised for "
        "them: unknown. They are judged by all 70 calibration images, and have no p-value. Train with good images of "
        "these sub-folders"
    )
    (together,) = verdicts.groups.explain(["a/1.png", "unknown/1.png"])
    assert together.endswith("the rate is promised for all of them as one, not for each: a (10)")
    by_name = {each["name"]: each for each in verdicts.groups.describe(["unknown/1.png"])}
    assert (by_name["unknown"]["promised"], by_name["unknown"]["n"], by_name["b"]["promised"]) == (False, 0, True)


def test_groups_that_are_too_small_even_together_have_no_promise_and_the_run_says_so(
    grouped: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.move(images / "good", images / "line 1")
    shutil.copy(next((images / "line 1").iterdir()), images / "lonely.jpg")
    with caplog.at_level(logging.INFO, logger="pipelines.score"):
        summary = score_folder(images, grouped / "model.onnx", tmp_path / "out", false_alarms=0.1, groups=True)
    warnings = [
        "4 images lie in sub-folders that the model was not calibrated on, so no false-alarm rate is promised for "
        "them: crack. They are judged by all 28 calibration images, and have no p-value. Train with good images of "
        "these sub-folders",
        "1 image lies in sub-folders for which no false-alarm rate is promised: 10 % needs 9 calibration images, and "
        "all such sub-folders together have 4: (no sub-folder) (2). They are judged by all 28 calibration images, and "
        "have no p-value",
    ]
    told = [record.getMessage() for record in caplog.records]
    assert [sum("crack" in line for line in told), sum("(no sub-folder)" in line for line in told)] == [1, 1]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["warnings"] == warnings
    assert run["calibration"]["grouped"]["unpromised"] == summary.unpromised == 5
    assert run["calibration"]["grouped"]["others"] == {"n": 28, "represented": False, "promised": False}
    assert (summary.rule or "").endswith("promised in each of 2 groups")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "4 images lie in sub-folders that the model was not calibrated on" in page
    assert "none is promised for 5 of them" in page
    assert "all images, without a promise" in page


@pytest.mark.parametrize("name", ["unknown", "", "lonely"])
def test_an_unknown_group_and_one_with_a_single_image_are_judged_by_all(name: str) -> None:
    calibration = calibration_of({"dark": np.arange(50.0), "lonely": [7.5]})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    (row,) = filled(verdicts, {name: [48.5]})[name]
    assert (row["group"], row["threshold"]) == (None, calibration.threshold(0.05))
    assert (row["p_value"], row["promised"]) == (None, False)
    assert verdicts.threshold_of("dark/1.png") == calibration_of({"dark": np.arange(50.0)}).threshold(0.05)


def test_a_single_image_suffices_where_it_can_promise_the_rate() -> None:
    groups = GroupThresholds.of(calibration_of({"dark": np.arange(50.0), "lonely": [7.5]}), 0.5)
    assert groups.own["lonely"].threshold == 7.5
    assert (groups.needed, groups.few) == (1, {})


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (1 / 3, 2), (0.3, 3), (1 / 49, 48)])
def test_as_many_images_as_are_said_to_be_needed_are_needed(rate: float, needed: int) -> None:
    calibration = calibration_of({"enough": np.arange(needed), "few": np.arange(needed - 1), "all": np.arange(200)})
    groups = GroupThresholds.of(calibration, rate)
    assert groups.needed == needed
    assert "enough" in groups.own
    assert "few" not in groups.own


def test_names_with_odd_characters_are_groups_like_others() -> None:
    calibration = calibration_of({name: np.arange(20) + 100 * i for i, name in enumerate(ODD)})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    found = filled(verdicts, {name: [100.0 * i + 19.5, 100.0 * i + 18.5] for i, name in enumerate(ODD)})
    for name, rows in found.items():
        assert [(row["group"], row["is_anomaly"]) for row in rows] == [(name, True), (name, False)]
    assert verdicts.groups is not None
    (line,) = verdicts.groups.explain(f"{name}/1.png" if name else "1.png" for name in ODD)
    assert "\n" not in line
    assert "\u202e" not in line
    assert "(no sub-folder) (20)" in line


def test_the_group_is_the_first_sub_folder_or_the_one_asked_for() -> None:
    assert [group_of(path) for path in ("a/b/c.png", "c.png", "a\\b/c.png", " /c.png")] == ["a", "", "a\\b", " "]
    assert [group_of(path, level=1) for path in ("a/b/c.png", "a/c.png", "c.png")] == ["b", "", ""]


def test_groups_promise_a_rate_and_nothing_else() -> None:
    calibration = calibration_of({"a": [1.0] * 30, "b": [2.0] * 30})
    for other in ({"budget": 3}, {"false_discoveries": 0.1}):
        with pytest.raises(CalibrationError, match="give no budget and no false discoveries with groups"):
            Verdicts.of(calibration, None, groups=True, **other)
    assert Verdicts.of(None, None, groups=True).threshold_of("a/1.png") is None


@pytest.fixture
def grouped(trained, tmp_path: Path) -> Path:
    """A bundle that was calibrated on two sub-folders with enough images for 20 %, one with too few, and none."""
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    folder = tmp_path / "good"
    for i, path in enumerate(sorted(trained.images.iterdir())[:28]):
        name = ("line 1", "line 1", "línea/x", "line 1", "línea/x", "few" if i < 13 else "", "línea/x")[i % 7]
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    path = bundle / "model.onnx"
    calibrate(Session(ModelFile(path=path, sha256=sha256_of(path), ref="x")), find_images(folder), None)
    return bundle


def test_calibration_knows_the_sub_folders(grouped: Path) -> None:
    calibration = Calibration.load(grouped / "calibration.json", model_sha256=sha256_of(grouped / "model.onnx"))
    assert {name: len(scores) for name, scores in calibration.groups.items()} == {
        "": 2, "few": 2, "line 1": 12, "línea": 12,
    }  # fmt: skip
    assert calibration.places is not None
    assert calibration.places.places == 28 * 48 * 40
    assert (grouped / "calibration.json").stat().st_size < 30_000


def test_a_run_judges_by_group_and_says_so_once(
    grouped: Path, images: Path, rows_of, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.move(images / "good", images / "line 1")
    with caplog.at_level(logging.INFO, logger="pipelines.score"):
        summary = score_folder(images, grouped / "model.onnx", tmp_path / "out", false_alarms=0.2, groups=True)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("groups ")]
    assert told == [
        "groups with a threshold of their own (calibration images): line 1 (12)",
    ]
    assert sum("crack" in record.getMessage() for record in caplog.records) == 1
    rows = rows_of(tmp_path / "out")
    assert {row["group"] for row in rows if row["path"].startswith("line 1/")} == {"line 1"}
    cracks = [row for row in rows if row["path"].startswith("crack/")]
    assert {(row["group"], row["p_value"], row["promised"]) for row in cracks} == {(None, None, False)}
    assert None not in {row["is_anomaly"] for row in cracks}
    assert {row["promised"] for row in rows if row["path"].startswith("line 1/")} == {True}
    assert len({row["threshold"] for row in rows}) == 2
    for row in rows:
        assert (tmp_path / "out" / "maps" / f"{row['path']}.png").is_file() == row["is_anomaly"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["command"].endswith("--false-alarms 0.2 --groups")
    by_name = {group["name"]: group for group in run["calibration"]["grouped"]["groups"]}
    assert (by_name["línea"]["n"], by_name["línea"]["images"], by_name["crack"]["threshold"]) == (12, 0, None)
    assert "promised in each of 2 groups, and in 2 with few calibration images together" in (summary.rule or "")
    assert (summary.by_group, summary.unpromised) == (12, 4)
    (warning,) = run["warnings"]
    assert warning.startswith("4 images lie in sub-folders that the model was not calibrated on")
    assert run["calibration"]["grouped"]["others"] == {"n": 4, "represented": True, "promised": True}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Thresholds by group" in page
    assert '<th scope="row">línea</th>' not in page
    assert "Sub-folders with fewer are judged together, by 4 calibration images" in page
    assert "none is promised for 4 of them" in page
    plain = score_folder(images, grouped / "model.onnx", tmp_path / "out", false_alarms=0.2)
    assert (plain.rule, plain.unpromised) == (None, 0)
    assert {row["promised"] for row in rows_of(tmp_path / "out")} == {True}
    assert {row["group"] for row in rows_of(tmp_path / "out")} == {None}
    assert "Thresholds by group" not in (tmp_path / "out" / "report.html").read_text()


def test_a_stopped_run_is_reported_by_the_same_groups(grouped: Path, images: Path, rows_of, tmp_path: Path) -> None:
    shutil.move(images / "good", images / "line 1")
    whole, out = tmp_path / "whole", tmp_path / "out"
    score_folder(images, grouped / "model.onnx", whole, false_alarms=0.2, groups=True)
    with score.open_scoring(
        images, grouped / "model.onnx", out, ScoreOptions(false_alarms=0.2, groups=True)
    ) as scoring:
        for shard in scoring.shards():
            scoring.run(shard)
    rebuild_report(out)
    assert rows_of(out) == [row | {"model": "tiles"} for row in rows_of(whole)]


def test_evaluation_judges_the_folders_below_the_labels(grouped: Path, images: Path, rows_of, tmp_path: Path) -> None:
    for name in ("good", "crack"):
        (tmp_path / "set" / "test" / name).mkdir(parents=True)
        shutil.move(images / name, tmp_path / "set" / "test" / name / "line 1")
    figures = evaluate_model(
        tmp_path / "set", grouped / "model.onnx", out=tmp_path / "out", false_alarms=0.2, groups=True
    )
    rows = rows_of(tmp_path / "out")
    assert {row["group"] for row in rows} == {"line 1"}
    bad = [row["is_anomaly"] for row in rows if row["path"].startswith("crack")]
    assert figures["tpr_at_threshold"] == np.mean(bad)
    assert figures["fpr_interval"] is None


def test_the_interval_of_the_rate_is_told_where_one_threshold_judged_all(trained, tmp_path: Path) -> None:
    plain, by_group = (evaluate_model(MAGNETIC_TILE, trained.model, groups=groups) for groups in (False, True))
    assert by_group["fpr_interval"] == plain["fpr_interval"] is not None


@pytest.mark.parametrize(("name", "is_told"), [("a", True), ("unknown", False)])
def test_no_interval_is_told_of_a_rate_that_is_not_promised(name: str, is_told: bool) -> None:
    """Nobody knows where the rate lies on sub-folders that calibration never saw."""
    calibration = calibration_of({"a": np.arange(12.0), "b": np.arange(12.0)})
    verdicts = Verdicts.of(calibration, 0.05, groups=True, group_level=1)
    rows = [{"path": f"{label}/{name}/{n}.png", "score": float(n)} for label in ("good", "crack") for n in range(9)]
    assert (measure_scores(rows, PixelFigures(), verdicts)["fpr_interval"] is not None) == is_told


def test_small_groups_are_named_where_the_folder_has_images_of_them() -> None:
    calibration = calibration_of({"large": np.arange(50.0), "a": np.arange(100.0, 110), "b": np.arange(110.0, 120)})
    groups = GroupThresholds.of(calibration, 0.0625)
    assert list(groups.explain(["a/1.png"])) == [
        "judged together by 20 calibration images of small groups, since 6.25 % needs 15 images in the group; the rate "
        "is promised for all of them as one, not for each: a (10)"
    ]
    assert list(groups.explain(["large/1.png"])) == ["with a threshold of their own (calibration images): large (50)"]


def test_calibration_without_groups_promises_nothing_for_a_sub_folder() -> None:
    """Whether a sub-folder is like the one folder that the model knows, nobody can say."""
    calibration = Calibration(model_sha256="", scores=tuple(np.arange(50.0)), map_quantiles={})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    found = filled(verdicts, {"cam1": [48.5], "": [48.5]})
    assert [found[name][0]["promised"] for name in ("cam1", "")] == [False, True]
    assert (found["cam1"][0]["p_value"], found[""][0]["p_value"]) == (None, 2 / 51)
    for (row,) in found.values():
        assert (row["group"], row["threshold"], row["is_anomaly"]) == (None, calibration.threshold(0.05), True)
    assert [verdicts.is_represented(path) for path in ("cam1/1.png", "1.png")] == [False, True]


def test_a_model_of_one_folder_judges_sub_folders_by_all_and_promises_nothing(
    trained, images: Path, rows_of, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pipelines.score"):
        summary = score_folder(images, trained.model, tmp_path / "out", groups=True)
    told = [record.getMessage() for record in caplog.records if "sub-folder" in record.getMessage()]
    n = Calibration.load(trained.bundle / "calibration.json", model_sha256=sha256_of(trained.model)).n
    assert told == [
        f"{summary.ok} images lie in sub-folders, and the model's calibration knows none, so no false-alarm rate is "
        f"promised for them: crack, good. They are judged by all {n} calibration images, and have no p-value. Train "
        "with good images in these sub-folders, or score without --groups: the rate then holds for images like the "
        "calibration images, all as one"
    ]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [warning for warning in run["warnings"] if "sub-folder" in warning] == told
    assert run["calibration"]["grouped"]["unpromised"] == summary.unpromised == summary.ok
    assert summary.rule is None
    rows = rows_of(tmp_path / "out")
    assert {(row["group"], row["promised"], row["p_value"]) for row in rows} == {(None, False, None)}
    assert {row["threshold"] for row in rows} == {summary.threshold}
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert f"of {summary.ok} images look" in page
    assert " abnormal, without a promise" in page
    assert "calibration has no sub-folders, so all images are judged by all" in page
    assert "is judged only by these" not in page
    assert summary.flagged == score_folder(images, trained.model, tmp_path / "plain").flagged


def test_a_folder_without_sub_folders_keeps_the_promise_of_a_plain_run(
    trained, images: Path, rows_of, tmp_path: Path
) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    summary = score_folder(images / "good", trained.model, out, groups=True)
    score_folder(images / "good", trained.model, plain)
    assert summary.unpromised == 0
    assert rows_of(out) == rows_of(plain)
    warnings = [json.loads((each / "run.json").read_text())["warnings"] for each in (out, plain)]
    assert warnings[0] == warnings[1]
    page = (out / "report.html").read_text()
    assert "at a promised false-alarm rate of" in page
    assert "Thresholds by group" not in page
    assert "Drag the golden line" in page
