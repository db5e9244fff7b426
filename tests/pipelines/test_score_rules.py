"""A whole folder's verdicts: a budget, false discoveries, and drift of the light."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import CalibrationError
from pipelines.score import score_folder


def test_a_budget_flags_and_draws_the_worst_alone(trained, images: Path, rows_of, tmp_path: Path) -> None:
    everything = score_folder(images, trained.model, tmp_path / "all", false_alarms=0.9)
    few = score_folder(images, trained.model, tmp_path / "few", false_alarms=0.9, budget=3)
    assert everything.flagged > 3
    assert few.flagged == 3
    rows = sorted(rows_of(tmp_path / "few"), key=lambda row: -row["score"])
    assert [row["is_anomaly"] for row in rows] == 3 * [True] + (len(rows) - 3) * [False]
    assert len(list((tmp_path / "few" / "maps").rglob("*.png"))) == 3
    run = json.loads((tmp_path / "few" / "run.json").read_text())
    assert run["calibration"]["rule"] == "at most the 3 worst images are flagged"
    assert "--budget 3" in run["command"]


def test_false_discoveries_are_a_rule_of_their_own(trained, images: Path, tmp_path: Path) -> None:
    summary = score_folder(images, trained.model, tmp_path / "out", false_discoveries=0.5)
    assert "Benjamini-Hochberg" in (summary.rule or "")
    assert "--false-discoveries 0.5" in json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    with pytest.raises(CalibrationError, match="is a rule of its own"):
        score_folder(images, trained.model, tmp_path / "out", false_discoveries=0.5, budget=2)


def test_darker_images_are_reported_as_drift_and_unchanged_ones_are_not(trained, tmp_path: Path) -> None:
    """The light goes down by half; the calibration set of this small model is made larger by repeating it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    document = json.loads((bundle / "calibration.json").read_text())
    document["statistics"] = {name: 2 * values for name, values in document["statistics"].items()}
    (bundle / "calibration.json").write_text(json.dumps(document))
    (tmp_path / "dark").mkdir()
    for path in trained.images.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        Image.fromarray((pixels * 0.5).astype(np.uint8)).save(tmp_path / "dark" / f"{path.stem}.png")
    same = score_folder(trained.images, bundle / "model.onnx", tmp_path / "same-out")
    assert same.drift is not None
    assert not same.drift.drifted
    dark = score_folder(tmp_path / "dark", bundle / "model.onnx", tmp_path / "dark-out")
    assert dark.drift is not None
    assert dark.drift.drifted
    run = json.loads((tmp_path / "dark-out" / "run.json").read_text())
    assert run["drift"]["drifted"] is True
    assert any("not like the calibration images" in warning for warning in run["warnings"])
    assert "not like the calibration images" in (tmp_path / "dark-out" / "report.html").read_text()
